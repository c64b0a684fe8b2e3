"""Read all images that a training will read late, before it begins."""

import os
from concurrent.futures import ThreadPoolExecutor

from deploy.heartbeat import counted, working
from distill.data.splits import Reader, Splits, files_of
from distill.training.log import say


def check_readable(splits: Splits, unlabeled: bool = True) -> None:
    """Read the validation and test images, and those without labels, once each.

    Without this, a damaged one would stop a run hours later. The statistics read the training images. Samples that are
    generated have no files that could be damaged.

    Args:
        splits: the data set.
        unlabeled: whether the run learns from images without labels.

    Raises:
        UserError: as the readers do, for the first sample that cannot be read; the message names the file.
    """
    readers = {"validation images": splits.val}
    if splits.tested_on == "test":
        readers["test images"] = splits.test
    if unlabeled and splits.unlabeled is not None:
        readers["images without labels"] = splits.unlabeled
    for name, reader in readers.items():
        if len(reader) and files_of(reader, 0):
            read_all(reader, name)


def read_all(reader: Reader, name: str = "images") -> None:
    """Read every sample once, by several threads; lines tell how far it is.

    Args:
        reader: a split.
        name: what it reads, for these lines.

    Raises:
        UserError: as the reader does, for the first sample that cannot be read; the message names the file.
    """

    def read(index: int) -> None:
        reader[index]  # not returned: images would pile up

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "reading")
    try:
        with working(f"reading the {name}", say):
            for _ in counted(pool.map(read, range(len(reader))), len(reader)):
                pass
    finally:  # a signal or an error waits for no more than the images that are being read
        pool.shutdown(cancel_futures=True)
