"""Data for grasp detection: readers of data sets, splits, target maps, and augmented views."""
