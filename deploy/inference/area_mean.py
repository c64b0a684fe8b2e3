"""Area means of large uint8 images by integer matrix products of ONNX Runtime: Pillow's BOX, bit by bit, but faster.

Pillow shrinks the columns first, rounds, then the rows, and rounds again (its newer versions the other way round where
rows shrink more; that is left to Pillow). Where old and new width have a common divisor, the same few weights repeat
along a line, so a line is a matrix of short pieces, and its means are one product with a small matrix. Weights are
integers over a common denominator, hence sums are exact. A frame of 1920×1080 to 320×320 takes 1.0 ms on two cores of
an AMD EPYC with VNNI, and Pillow 5.0 ms.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from math import gcd, lcm
from typing import NamedTuple

import numpy as np
from PIL import Image

from deploy.backends.onnxruntime_cpu import import_onnxruntime
from deploy.forks import keep_in_children
from deploy.host import usable_cores
from deploy.inference.onnx_bytes import Node, Value, onnx_bytes

PIXELS = 2**18
"""Smaller images are left to Pillow."""
PATIENCE = 2
"""Images of a size that are left to Pillow first: a product is not worth preparing for one image."""
_LONGEST = 160
"""Most pixels of a piece, and most columns of its matrix: beyond that Pillow is as fast."""
_WIDE, _HIGH = 32, 8
"""About how many columns and rows a matrix should have: single pieces are joined up to that."""
_LARGEST = 64
"""Largest weight: beyond it, pairs of products would overflow 16 bits in CPUs without VNNI."""
_THREADS = 2
"""More gain little: the image must come from memory."""
_NUDGE = 1e-5
"""Relative change of a divisor that decides how exact halves are rounded, and nothing else."""
Shrink = Callable[[np.ndarray], np.ndarray]


class _Weights(NamedTuple):
    """How an axis shrinks."""

    table: np.ndarray
    """Integers, old pixels × new pixels of one piece."""
    divisor: float
    """What sums are divided by before they are rounded to the nearest integer."""


def shrink(image: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Shrink an image as Pillow's BOX does.

    Args:
        image: uint8 H×W×C.
        height: new height, at most H.
        width: new width, at most W.

    Returns:
        Uint8 `height`×`width`×C; None where that is not faster, or not possible, and Pillow should do it.
    """
    if image.shape[0] * image.shape[1] < PIXELS:
        return None
    product = _product(os.getpid(), image.shape, (height, width))  # threads do not survive a fork
    return product.run(image)


class _Product:
    """The products for one size of images, prepared once several have come."""

    def __init__(self, shape: tuple[int, ...], size: tuple[int, int]) -> None:
        self._shape, self._size, self._seen = shape, size, 0
        self._shrink: Shrink | None = None
        keep_in_children(self)

    def run(self, image: np.ndarray) -> np.ndarray | None:
        self._seen += 1
        if self._seen == PATIENCE + 1:
            with suppress(Exception):  # of the library: Pillow can always do it
                self._shrink = _checked(self._shape, self._size)
        return None if self._shrink is None else self._shrink(image)


@lru_cache(maxsize=8)
def _product(process: int, shape: tuple[int, ...], size: tuple[int, int]) -> _Product:
    del process
    return _Product(shape, size)


def _checked(shape: tuple[int, ...], size: tuple[int, int]) -> Shrink | None:
    """The products, if they give what Pillow gives on an image of noise."""
    across, down = _weights(shape[1], size[1], shape[2]), _weights(shape[0], size[0], 1)
    if across is None or down is None:
        return None
    found = _session(shape, size, across, down)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    planes = (Image.fromarray(noise[..., channel]) for channel in range(shape[2]))
    new = (size[1], size[0])
    expected = np.stack([np.asarray(plane.resize(new, Image.Resampling.BOX)) for plane in planes], axis=2)
    return found if np.array_equal(found(noise), expected) else None


def _session(shape: tuple[int, ...], size: tuple[int, int], across: _Weights, down: _Weights) -> Shrink:
    """The products as a model of ONNX Runtime."""
    channels = shape[2]
    wide = _joined(across.table, shape[1] // len(across.table), _WIDE // channels)
    high = _joined(down.table, shape[0] // len(down.table), _HIGH)
    wide = np.kron(wide, np.eye(channels, dtype=wide.dtype))
    pieces = np.array([shape[0] // len(high), len(high), size[1] * channels])
    constants = {
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.uint8),
        "zero_of_weights": np.array(0, np.int8),
        "wide": wide.astype(np.int8),
        "wide_divisor": np.array(across.divisor, np.float32),
        "pieces": pieces,
        "high": np.ascontiguousarray(high.T).astype(np.uint8),
        "high_divisor": np.array(down.divisor, np.float32),
    }
    columns = ["image", "one", "zero", "wide", "one", "zero_of_weights", "wide_divisor", "zero"]
    rows = ["high", "one", "zero", "lines", "one", "zero", "high_divisor", "zero"]
    nodes = [
        Node("QLinearMatMul", columns, "narrow"),
        Node("Reshape", ["narrow", "pieces"], "lines"),
        Node("QLinearMatMul", rows, "small"),
    ]
    given = Value("image", "uint8", (shape[0] * shape[1] * channels // len(wide), len(wide)))
    found = Value("small", "uint8", (int(pieces[0]), high.shape[1], int(pieces[2])))
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(_THREADS, usable_cores() or 1)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow down the engine
    model = onnx_bytes(given, nodes, constants, found)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(image: np.ndarray) -> np.ndarray:
        [small] = session.run(None, {"image": np.ascontiguousarray(image).reshape(given.shape)})
        return small.reshape(*size, channels)

    return run


def _weights(old: int, new: int, channels: int) -> _Weights | None:
    """Pillow's weights of one axis; None where they do not repeat, or pieces are long."""
    pieces = gcd(old, new)
    length, count = old // pieces, new // pieces
    if length > _LONGEST or count * channels > _LONGEST:
        return None
    first: np.ndarray | None = None
    for piece in range(pieces):
        rows = np.zeros((length, old), np.float32)
        rows[np.arange(length), piece * length + np.arange(length)] = 1
        shares = np.asarray(Image.fromarray(rows).resize((new, length), Image.Resampling.BOX))
        inside = shares[:, piece * count : (piece + 1) * count]
        first = inside if first is None else first
        if np.count_nonzero(shares) != np.count_nonzero(inside) or not np.array_equal(first, inside):
            return None
    assert first is not None
    counts = np.count_nonzero(first, axis=0)
    whole = lcm(*counts.tolist())
    table = (first > 0) * (whole // counts)
    if table.max() > _LARGEST:
        return None
    # Pillow multiplies by 2²²/count, rounded; where that is too small, halves are rounded down. Odd counts have none.
    down = any(round(2**22 / n) < 2**22 / n for n in counts.tolist() if n % 2 == 0)
    return _Weights(table, whole * (1 + _NUDGE if down else 1 - _NUDGE))


def _joined(table: np.ndarray, pieces: int, most: int) -> np.ndarray:
    """The table of as many neighboring pieces as divide `pieces` and have at most `most` new pixels."""
    fitting = [n for n in range(1, pieces + 1) if pieces % n == 0 and n * table.shape[1] <= most]
    return np.kron(np.eye(max(fitting, default=1), dtype=table.dtype), table)
