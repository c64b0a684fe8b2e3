"""Data for grasp detection: readers, splits, target maps and augmented views."""
