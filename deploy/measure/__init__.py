"""How fast networks are on this device: `edgedistill measure`, and what a training run makes of its result."""
