"""From a network's scores to labels: numpy alone, for all who decide labels."""
