"""Analyze a segmentation model on labeled images: curves, calibration, scores by image, comparisons.

Everything is counted image by image in arrays of fixed size that can be added up, so memory does not grow with the
number of pixels. Only numpy and Pillow are needed; `distill.compare` draws the figures.
"""
