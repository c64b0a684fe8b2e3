"""Losses of a network against labels or target maps."""
