"""Dense regression: one number for each pixel, such as depth or height."""
