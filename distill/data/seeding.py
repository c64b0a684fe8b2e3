"""Random generators that depend on their key alone, never on history, process or worker."""

import hashlib

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """The generator of a key such as `("augment", seed, epoch, index)`; equal keys give equal streams."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
