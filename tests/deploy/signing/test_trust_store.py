"""Receipts of trusted engines: outside of bundles, the user's alone, one file each."""

import os
import stat
import sys
from subprocess import Popen

import pytest

from deploy.errors import UserError
from deploy.signing import trust_store
from deploy.signing.trust_store import distrust, trust, trust_folder, why_untrusted
from tests.conftest import ROOT

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """A user without any receipt."""
    monkeypatch.setenv("EDGEDISTILL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(trust_store, "_here", set())
    return tmp_path / "state" / "trusted-engines"


def another_process(monkeypatch):
    """Forget what only this process knows."""
    monkeypatch.setattr(trust_store, "_here", set())


def test_trusted_until_it_is_not(monkeypatch, tmp_path):
    assert why_untrusted(DIGEST) == "was neither built nor trusted on this machine by this user"
    receipt = trust(DIGEST, tmp_path / "x.engine", "trusted")
    for _ in range(2):
        assert why_untrusted(DIGEST) == ""
        another_process(monkeypatch)
    assert why_untrusted("cd" * 32) != ""
    assert distrust(DIGEST)
    assert not receipt.exists()
    assert why_untrusted(DIGEST) != ""
    assert not distrust(DIGEST)


def test_only_the_user_can_read_and_write_it(state, tmp_path):
    previous = os.umask(0)
    try:
        receipt = trust(DIGEST, tmp_path / "x.engine", "built")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(receipt.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


@pytest.mark.parametrize("what", ["folder", "receipt"])
def test_what_others_could_have_written_counts_for_nothing(monkeypatch, state, tmp_path, what):
    receipt = trust(DIGEST, tmp_path / "x.engine", "built")
    another_process(monkeypatch)
    place = state if what == "folder" else receipt
    place.chmod(place.stat().st_mode | 0o020)
    assert f"other users could have written (chmod go-w {place})" in why_untrusted(DIGEST)
    place.chmod(place.stat().st_mode & ~0o022)
    assert why_untrusted(DIGEST) == ""


def test_another_users_receipt(monkeypatch, tmp_path):
    receipt = trust(DIGEST, tmp_path / "x.engine", "built")
    another_process(monkeypatch)
    found = os.stat_result([*receipt.stat()[:4], 4321, *receipt.stat()[5:]])
    monkeypatch.setattr(os, "fstat", lambda descriptor: found)
    assert why_untrusted(DIGEST) == f"has a receipt that belongs to another user ({receipt})"


@pytest.mark.parametrize(("content", "why"), [(b"{", "cannot be read"), (None, "is of another engine")])
def test_a_receipt_that_says_something_else(monkeypatch, tmp_path, content, why):
    other = trust("cd" * 32, tmp_path / "x.engine", "built")
    receipt = trust(DIGEST, tmp_path / "x.engine", "built")
    receipt.write_bytes(other.read_bytes() if content is None else content)
    another_process(monkeypatch)
    assert why in why_untrusted(DIGEST)


def test_without_a_home_folder(monkeypatch, tmp_path):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EDGEDISTILL_STATE")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", fail)
    with pytest.raises(UserError, match=r"no home folder .*; set EDGEDISTILL_STATE"):
        trust(DIGEST, tmp_path, "built")
    assert why_untrusted(DIGEST) == ""  # this process knows
    another_process(monkeypatch)
    assert "no home folder" in why_untrusted(DIGEST)


def test_several_processes_at_once(state, monkeypatch):
    code = """
import sys
from pathlib import Path
from deploy.signing.trust_store import distrust, trust
for number in range(20):
    trust(f"{number:064x}", Path(sys.argv[1]), "built")
    trust(f"{int(sys.argv[2]):064x}", Path(sys.argv[1]), "built")
    distrust(f"{19 + int(sys.argv[2]):064x}")
"""
    command = [sys.executable, "-c", code, "x.engine"]
    processes = [Popen([*command, str(number)], cwd=ROOT) for number in (100, 200, 300)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    numbers = {int(path.stem, 16) for path in trust_folder().iterdir()}
    assert numbers == {*range(20), 100, 200, 300}
    assert all(why_untrusted(f"{number:064x}") == "" for number in numbers)
