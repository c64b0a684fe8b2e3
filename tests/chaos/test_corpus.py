"""The kept corpus, and the same files with a few bytes changed: what is read is right, or the refusal is one line.

The changes are drawn from the file's name, so they are the same in every run. `EDGEDISTILL_CHAOS=N` tries N of each
file instead of 30; a fault that this finds gets a file in the corpus (`make_corpus.py`).
"""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import TypeVar

import numpy as np
import pytest

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MANIFEST
from deploy.errors import UserError
from deploy.files.images import read_image, read_mask
from deploy.text import shown
from distill.data.datasets.classes_file import read_classes
from distill.losses.registry import SEGMENTATION_LOSSES
from distill.losses.task_loss import parse_task_terms
from tests.chaos.make_corpus import CORPUS
from tests.deploy.hostile import seal
from tests.deploy.tiny import make_bundle

T = TypeVar("T")
COUNT = int(os.environ.get("EDGEDISTILL_CHAOS", "30"))
SECONDS = 60
"""For one read, on a busy machine: a hang, not a slow reader."""
MEGABYTES = 400
"""Most memory by which a process may grow, over all reads."""
EXTREMES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\x01",
    b"\xff\xff",
    b"\x00\x00\x00\x00",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
)


def changed(data: bytes, random: Random) -> bytes:
    """The bytes with one thing changed."""
    edited, size = bytearray(data), len(data)
    at = random.randrange(size if random.random() < 0.5 else min(size, 64))  # half of them in the header
    kind = random.randrange(6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        value = random.choice(EXTREMES)
        edited[at : at + len(value)] = value
    elif kind == 2:
        del edited[at : at + random.randint(1, 16)]
    elif kind == 3:
        edited[at:at] = random.randbytes(random.randint(1, 16))
    elif kind == 4:
        edited[at:at] = edited[at : at + random.randint(1, 64)]
    else:
        for _ in range(random.randint(1, 3)):
            edited[random.randrange(size)] ^= 1 << random.randrange(8)
    return bytes(edited)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail instead of hanging."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def peak() -> float:
    """Megabytes of this process at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def result(read: Callable[[T], object], given: T) -> object:
    """What is read, or None after a refusal in one line."""
    try:
        with within(SECONDS):
            return read(given)
    except UserError as error:
        text = str(error)
        assert shown(text) == text
        assert len(text) < 3000
        return None


IMAGES = sorted((CORPUS / "images").iterdir())


@pytest.mark.parametrize("source", IMAGES, ids=lambda path: path.name)
def test_images_and_masks(source, tmp_path):
    data, random, before = source.read_bytes(), Random(source.name), peak()
    for read in (read_image, read_mask):
        path = tmp_path / source.name
        path.write_bytes(data)
        right = result(read, path)
        for number in range(COUNT):
            damaged = changed(data, random)
            path.write_bytes(damaged)
            found = result(read, path)
            if found is None:
                continue
            where = f"{read.__name__} of {source.name}, change {number}"
            assert isinstance(found, np.ndarray), where
            assert found.ndim in (2, 3), where
            assert found.size, where
            # The checksums of a PNG show any change, and what is cut off is never filled in.
            if right is not None and (path.suffix == ".png" or data.startswith(damaged)):
                np.testing.assert_array_equal(found, right, err_msg=where)
    assert peak() - before < MEGABYTES


@pytest.mark.parametrize("source", sorted((CORPUS / "classes").iterdir()), ids=lambda path: path.name)
def test_classes(source, tmp_path):
    data, random, path = source.read_bytes(), Random(source.name), tmp_path / "classes.json"
    for _ in range(COUNT):
        path.write_bytes(changed(data, random))
        result(read_classes, path)


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_manifests_whose_digest_is_mended(kind, tmp_path):
    make_bundle(tmp_path, kind)
    data, random = (tmp_path / MANIFEST).read_bytes(), Random(kind)
    for _ in range(4 * COUNT):
        damaged = changed(data, random)
        (tmp_path / MANIFEST).write_bytes(damaged)
        with suppress(
            ValueError, TypeError, AttributeError, OverflowError, OSError
        ):  # no JSON any more: as it is
            seal(tmp_path, json.loads(damaged))
        result(read_manifest, tmp_path)


@pytest.mark.parametrize("text", (CORPUS / "losses.txt").read_text(encoding="utf-8").splitlines())
def test_losses(text):
    random, parse = Random(text), partial(parse_task_terms, losses=SEGMENTATION_LOSSES)
    for number in range(COUNT):
        damaged = changed(text.encode(), random).decode("utf-8", "replace") if number else text
        result(parse, damaged)


def test_the_corpus_is_small_and_made_by_the_script():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert sum(path.stat().st_size for path in files) < 200_000
