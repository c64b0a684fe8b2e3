"""Interrupted runs: what is left on disk, and that resuming gives the same bytes."""

import errno
import os

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.raster import ArraySource, Options, predict_raster
from deploy.raster.parts import journal_of, open_parts
from tests.deploy.raster.networks import Counting, conv_model, predict, sar

OPTIONS = Options(memory=1, batch=2, probabilities="uint8")
IMAGE = sar(200, 1100)
IMAGE[60:90, 200:800] = np.nan
FINGERPRINT = {"bundle": "1234", "--overlap": None, "--min-valid": 0.5}


class Interrupted(Exception):
    """Raised by the tests to interrupt a run."""


def run(out, resume=False, stop_after=None, fingerprint=FINGERPRINT, engine=None, options=OPTIONS):
    """Predict into parts and return them as (labels, probabilities); stop after some pieces."""
    with open_parts(out, fingerprint, resume) as parts:
        write, count = parts.write, [0]

        def stopping(*piece):
            if count[0] == stop_after:
                raise Interrupted
            write(*piece)
            count[0] += 1

        parts.write = stopping
        predict_raster(conv_model(engine), ArraySource(IMAGE), parts, options)
        labels = parts.labels.read(0, 0, 200)
        planes = np.stack([parts.probabilities.read(i, 0, 200) for i in range(3)])
        parts.remove()
        return labels, planes


def test_parts_hold_what_was_written(tmp_path):
    labels, planes = run(tmp_path / "out.tif")
    wanted = predict(IMAGE, OPTIONS)
    np.testing.assert_array_equal(labels, wanted.labels)
    np.testing.assert_array_equal(planes, wanted.probabilities)
    assert list(tmp_path.iterdir()) == []


def test_two_commands_never_write_one_output(tmp_path):
    out = tmp_path / "new" / "out.tif"
    busy = r"out\.tif: another command is writing it; wait for it, or choose another name"
    with open_parts(out, FINGERPRINT, False) as parts:
        for resume in (False, True):
            with pytest.raises(UserError, match=busy), open_parts(out, FINGERPRINT, resume):
                pass
        predict_raster(conv_model(), ArraySource(IMAGE), parts, OPTIONS)
        for resume in (False, True):
            with pytest.raises(UserError, match=busy), open_parts(out, FINGERPRINT, resume):
                pass
    labels, _ = run(out, resume=True)
    np.testing.assert_array_equal(labels, predict(IMAGE, OPTIONS).labels)
    assert list(out.parent.iterdir()) == []


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    with pytest.raises(Interrupted), open_parts(tmp_path / "out.tif", FINGERPRINT, False):
        raise Interrupted
    assert list(tmp_path.iterdir()) == []


def test_a_run_resumed_after_any_piece_gives_the_same(tmp_path):
    wanted, engine = run(tmp_path / "whole.tif"), Counting()
    run(tmp_path / "counted.tif", engine=engine)
    for stop in range(1, 16):  # the pieces of 2 blocks × 4 rows, and beyond
        out, again = tmp_path / f"{stop}.tif", Counting()
        try:
            found = run(out, stop_after=stop)
            assert stop >= 8
        except Interrupted:
            found = run(out, resume=True, engine=again)
            assert again.tiles < engine.tiles or stop == 1  # the first row contributes to the second piece
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_interrupted_again_and_again(tmp_path):
    wanted, out = run(tmp_path / "whole.tif"), tmp_path / "out.tif"
    found = None
    for _ in range(20):
        try:
            found = run(out, resume=True, stop_after=1)
            break
        except Interrupted:
            continue
    assert found is not None
    np.testing.assert_array_equal(found[0], wanted[0])


def test_a_cut_line_of_the_journal_is_not_counted(tmp_path):
    out = tmp_path / "out.tif"
    with pytest.raises(Interrupted):
        run(out, stop_after=3)
    journal = journal_of(out)
    assert len(journal.entries()) == 3
    with open(journal.path, "ab") as file:
        file.write(b"3")
    assert len(journal.entries()) == 3
    np.testing.assert_array_equal(run(out, resume=True)[0], predict(IMAGE, OPTIONS).labels)


def test_without_resume_an_interrupted_run_is_named(tmp_path):
    out = tmp_path / "out.tif"
    with pytest.raises(Interrupted):
        run(out, stop_after=2)
    with pytest.raises(
        UserError, match=r"left 2 finished parts; add --resume .* or remove .*\.out\.tif\.journal"
    ):
        run(out)


def test_interrupted_before_the_first_piece_starts_anew(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path / "out.tif", stop_after=0)
    run(tmp_path / "out.tif")


def test_resume_without_an_earlier_run_starts_one(tmp_path):
    np.testing.assert_array_equal(run(tmp_path / "out.tif", resume=True)[0], predict(IMAGE, OPTIONS).labels)


@pytest.mark.parametrize(
    ("change", "names"),
    [({"bundle": "5678"}, "bundle"), ({"bundle": "5678", "--overlap": 8}, "bundle, --overlap")],
)
def test_another_run_is_not_resumed(tmp_path, change, names):
    out = tmp_path / "out.tif"
    with pytest.raises(Interrupted):
        run(out, stop_after=2)
    with pytest.raises(
        UserError, match=f"cannot be resumed, because {names} changed since it was started"
    ) as caught:
        run(out, resume=True, fingerprint=FINGERPRINT | change)
    assert "\n" not in str(caught.value)


def test_missing_part_is_named(tmp_path):
    out = tmp_path / "out.tif"
    with pytest.raises(Interrupted):
        run(out, stop_after=2)
    (tmp_path / ".out.tif.labels").unlink()
    with pytest.raises(UserError, match=r"\.out\.tif\.labels: is missing or incomplete.*without --resume"):
        run(out, resume=True)


def test_damaged_journal_is_another_run(tmp_path):
    out = tmp_path / "out.tif"
    with pytest.raises(Interrupted):
        run(out, stop_after=2)
    path = journal_of(out).path
    path.write_bytes(b"\xff{]" + path.read_bytes())
    with pytest.raises(UserError, match="cannot be resumed"):
        run(out, resume=True)


def test_existing_output_is_not_replaced(tmp_path):
    (tmp_path / "out.tif").write_text("precious")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"out\.tif: exists; remove it"):
            run(tmp_path / "out.tif", resume)


def test_unwritable_folder_is_named_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("")
    engine = Counting()
    with pytest.raises(UserError, match=r"file/out\.tif: cannot be written"):
        run(tmp_path / "file" / "out.tif", engine=engine)
    assert engine.tiles == 0


def test_full_disk_is_named_and_the_run_goes_on_later(tmp_path, monkeypatch):
    out, calls, sync = tmp_path / "out.tif", [0], os.fsync

    def full(descriptor):
        calls[0] += 1
        if calls[0] == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"out\.tif: the disk is full; free some space"):
            run(out)
    assert len(journal_of(out).entries()) > 0
    np.testing.assert_array_equal(run(out, resume=True)[0], predict(IMAGE, OPTIONS).labels)
