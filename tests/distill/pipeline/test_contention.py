"""A training whose cores other programs use says so."""

import time

import pytest
import torch

from distill.pipeline import contention
from distill.pipeline.contention import waited, warning_of_other_work


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def block(monkeypatch, delay: float, environment=None) -> None:
    """A block of 0.1 s, in which threads wait `delay` seconds for a core."""
    times = iter([1.0, 1.0 + delay])
    monkeypatch.setattr(contention, "waited", lambda: next(times))
    with warning_of_other_work(environment or {}):
        time.sleep(0.1)


@pytest.mark.usefixtures("two_threads")
def test_waiting_threads_are_told_of(monkeypatch, capsys):
    block(monkeypatch, 0.08)
    told = capsys.readouterr().err
    assert told.startswith("warning: other programs use these cores: the 2 threads waited ")
    assert "GOMP_SPINCOUNT=0" in told
    assert told.count("\n") == 1


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("delay", "environment"),
    [(0.002, {}), (0.08, {"GOMP_SPINCOUNT": "0"}), (0.08, {"OMP_WAIT_POLICY": "passive"})],
)
def test_nothing_is_said_where_nothing_is_to_be_done(monkeypatch, capsys, delay, environment):
    block(monkeypatch, delay, environment)
    assert capsys.readouterr().err == ""


def test_one_thread_waits_for_nobody(monkeypatch, capsys):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    block(monkeypatch, 0.08)
    assert capsys.readouterr().err == ""


def test_what_the_system_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(contention, "TASKS", tmp_path)
    assert waited() is None
    for name, content in (("1", "9 2000000000 3"), ("2", "9 500000000 3"), ("3", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(content)
    assert waited() == 2.5
    monkeypatch.setattr(contention, "TASKS", tmp_path / "nowhere")
    assert waited() is None
