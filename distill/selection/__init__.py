"""The choice of a student by its speed: untrained networks are exported, timed and compared with a budget."""
