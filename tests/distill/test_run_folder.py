"""The folder of a run: one process at a time, resumed with the same data, and what it says about old ones."""

import json
import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.files.images import write_png
from distill import run_folder as module
from distill.config import DataConfig
from distill.pipeline.pipeline import run
from distill.run import parse
from distill.run_folder import ORIGIN, SETTINGS, check_origin, in_use, origin_of
from distill.tasks.registry import open_splits
from tests.distill.tiny import RUN


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val", "test"):
        for number in range(4):
            rng = np.random.default_rng(number)
            label = (np.indices((48, 48)).sum(0) // 8 % 2).astype(np.uint8)
            folder = tmp_path / "data" / split
            write_png(folder / "images" / f"{number}.png", rng.integers(0, 255, (48, 48, 3), np.uint8))
            write_png(folder / "masks" / f"{number}.png", label)
    (tmp_path / "data" / "classes.json").write_text('["land", "water"]')
    return tmp_path / "data"


def splits_of(root):
    return open_splits(DataConfig("folder", root, size=(48, 48)))


@pytest.fixture
def begun(root, tmp_path):
    """The folder of a run that was started with these data."""
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / ORIGIN, origin_of(splits_of(root)))
    return tmp_path / "run"


class TestOrigin:
    def test_the_same_data_elsewhere_are_fine(self, root, begun, tmp_path):
        shutil.copytree(root, tmp_path / "copy")
        assert check_origin(begun, origin_of(splits_of(tmp_path / "copy"))) == []

    def test_what_changed_is_said_with_the_remedy(self, root, begun):
        (root / "classes.json").write_text('["water", "land"]')
        with pytest.raises(UserError, match=r"classes were land #\w+, water #\w+, are water .*another --out"):
            check_origin(begun, origin_of(splits_of(root)))

    def test_a_run_of_before_says_that_nothing_is_compared_once(self, root, tmp_path):
        config = parse([*RUN, f"--out={tmp_path / 'run'}", "--resume"])
        write_json(config.out / SETTINGS, module.settings(config))
        (config.out / "teacher").mkdir()
        origin = origin_of(splits_of(root))
        (line,) = check_origin(config.out, origin)
        assert line.endswith("does not tell which data it was started with, so they are not compared")
        module.claim_folder(config, {}, origin)
        assert check_origin(config.out, origin) == []

    def test_another_version_is_said(self, root, begun, monkeypatch):
        monkeypatch.setattr(module, "version", lambda name: "99.0")
        (line,) = check_origin(begun, origin_of(splits_of(root)))
        assert line.endswith("this is 99.0")

    @pytest.mark.parametrize("content", [b"{", b'{"edgedistill": 1}', b"\xff"])
    def test_a_damaged_record_is_one_line(self, root, begun, content):
        (begun / ORIGIN).write_bytes(content)
        with pytest.raises(UserError, match=r"origin\.json: cannot be read .*; choose another --out"):
            check_origin(begun, origin_of(splits_of(root)))


HOLD = """
import sys, time
from pathlib import Path
from distill.run_folder import in_use

with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_running_run_is_locked_until_its_process_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is running there"), in_use(tmp_path):
            pass
        process.kill()
    with in_use(tmp_path):
        pass


def test_a_refused_run_leaves_no_folder(tmp_path):
    with in_use(tmp_path / "runs" / "one"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_on_other_data_is_not_resumed(root, tmp_path):
    out = tmp_path / "run"
    fields = [
        "--data.name=folder",
        f"--data.root={root}",
        "--data.size",
        "48",
        "48",
        "--no-teacher",
        "--int8.no-enabled",
    ]
    arguments = [*RUN, *fields, f"--out={out}", "--resume"]
    run(parse(arguments))
    left = out / "student" / f".last.safetensors.{_dead()}-0123abcd.tmp"
    left.write_bytes(b"half")
    report = json.loads((out / "report.json").read_text())
    run(parse(arguments))  # nothing has changed
    assert json.loads((out / "report.json").read_text())["rows"][0]["score"] == report["rows"][0]["score"]
    assert not left.exists()
    shutil.copy(root / "train" / "images" / "0.png", root / "train" / "images" / "new.png")
    shutil.copy(root / "train" / "masks" / "0.png", root / "train" / "masks" / "new.png")
    stats = (out / "stats.json").read_bytes()
    with pytest.raises(UserError, match=r"the data have changed .*: 1 of train added \(new\)"):
        run(parse(arguments))
    assert (out / "stats.json").read_bytes() == stats
    assert msgspec.json.decode((out / ORIGIN).read_bytes())["data"]["splits"]["train"]["ids"] == [
        "0",
        "1",
        "2",
        "3",
    ]


def _dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_from_before_a_field_existed_is_resumed(tmp_path):
    config = parse([*RUN, f"--out={tmp_path}", "--resume"])
    write_json(config.out / SETTINGS, module.settings(config))
    stored = json.loads((tmp_path / "config.json").read_text())
    for part in ("teacher", "student"):
        del stored[f"{part}.align_corners"], stored[f"{part}.contract_dilation"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert module.holds_run(config, {})
    other = parse([*RUN, f"--out={tmp_path}", "--resume", "--teacher.align-corners"])
    with pytest.raises(UserError, match=r"teacher\.align_corners was False, is True"):
        module.holds_run(other, {})
