"""How many calibration images quantization needs. Imports nothing, so that checking a configuration stays fast."""

MIN_CALIBRATION_IMAGES = 8
"""With fewer, quantization is refused."""
ENOUGH_CALIBRATION_IMAGES = 32
"""With fewer, quantization warns."""
