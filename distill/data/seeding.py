"""Random generators that depend only on a key, not on history, process or worker."""

import hashlib

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """The generator of a key such as `("augment", seed, epoch, index)`; equal keys yield equal streams."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def augmentation_generator(seed: int, epoch: int, index: int, views: int = 0) -> np.random.Generator:
    """The generator that augments image `index` in `epoch`; if `views` > 0, it repeats every `views` epochs."""
    return generator("augment", seed, epoch % views if views else epoch, index)
