"""A damaged image of any split is found before the first step, and a stop request does not wait for the others."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.errors import UserError
from deploy.files.images import write_png
from deploy.signals import Stopped, stopping_by_exception
from distill.data.datasets.folder import open_folder
from distill.data_config import DataConfig
from distill.pipeline import prepare as preparation
from distill.pipeline.pipeline import run
from distill.pipeline.read_check import check_readable, read_all
from distill.run import parse
from tests.distill.tiny import RUN


def write_image(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def write_folder(root: Path, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        for number in range(3):
            write_image(root / split / "images" / f"{number}.png", number)
            label = (np.indices((32, 32)).sum(0) // 8 % 2).astype(np.uint8)
            write_png(root / split / "masks" / f"{number}.png", label)
    return root


def damage(image: Path, suffix: str) -> Path:
    """The same image with another suffix, cut after two thirds."""
    image.unlink()
    path = image.with_suffix(suffix)
    write_image(path, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy", ".webp"])
def test_a_damaged_validation_image_is_named(tmp_path, suffix):
    root = write_folder(tmp_path)
    path = damage(root / "val" / "images" / "1.png", suffix)
    splits = open_folder(DataConfig(name="folder", root=root), 0)
    with pytest.raises(UserError, match=f"^{path}: ") as error:
        check_readable(splits)
    assert "\n" not in str(error.value)


def test_so_is_one_of_a_test_split(tmp_path):
    root = write_folder(tmp_path, ("train", "val", "test"))
    path = damage(root / "test" / "images" / "2.png", ".jpg")
    with pytest.raises(UserError, match=f"^{path}: "):
        check_readable(open_folder(DataConfig(name="folder", root=root), 0))


def test_a_run_refuses_before_it_writes_anything(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data")
    path = damage(root / "val" / "images" / "1.png", ".jpg")
    monkeypatch.setattr(preparation, "check_export", lambda *_: None)  # seconds, and of no concern here
    options = ["--data.name=folder", f"--data.root={root}", f"--out={tmp_path / 'run'}", "--no-baseline"]
    with pytest.raises(UserError, match=f"^{path}: "):
        run(parse([*RUN, *options, "--teacher.no-detail", "--student.no-detail", "--int8.no-enabled"]))
    assert not (tmp_path / "run").exists()


class Slow:
    """The first sample sends this process a signal, and all wait until it has been heard."""

    ids = tuple(map(str, range(1000)))

    def __init__(self, number: int) -> None:
        self.number, self.read, self.heard = number, 0, threading.Event()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        self.read += 1
        if index == 0:
            os.kill(os.getpid(), self.number)
        self.heard.wait(0.05)
        return index


def test_a_stop_request_does_not_wait_for_all_images():
    reader = Slow(signal.SIGTERM)
    with pytest.raises(Stopped), stopping_by_exception():
        read_all(reader)
    assert reader.read < len(reader)


def test_the_first_damaged_image_is_named_whatever_thread_was_first():
    class Damaged(Slow):
        def __getitem__(self, index: int) -> int:
            if index % 100 == 50:
                raise UserError(f"{index}: damaged")
            return index

    for _ in range(20):
        with pytest.raises(UserError, match="50: damaged"):
            read_all(Damaged(0))
