"""Parallel-jaw grasps in images: geometry, decoding from a network's maps, poses, and scores; in NumPy only."""
