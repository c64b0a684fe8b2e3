"""What a segmentation model does on labeled images, in numbers: curves, calibration, scores by image, comparisons.

Everything is counted image by image in arrays of fixed size that can be added up, so memory does not grow with the
pixels. Only numpy is needed; `distill.analysis` draws.
"""
