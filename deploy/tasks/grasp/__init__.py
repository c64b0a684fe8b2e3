"""Parallel-jaw grasps in images: their geometry, decoding from a network's maps, poses, and scores. Numpy alone."""
