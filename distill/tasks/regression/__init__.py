"""Dense regression in training: one map of numbers, such as depth or height."""
