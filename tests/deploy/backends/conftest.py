"""Fixtures of the tests of `auto`."""

import pytest

from deploy.backends import auto
from tests.deploy.backends.cpu_fakes import Machine
from tests.deploy.tiny import make_bundle


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(auto, "open_cpu", machine.open)
    monkeypatch.setattr("deploy.backends.open.open_cpu", machine.open)
    monkeypatch.setattr(auto, "find_spec", lambda name: name)
    monkeypatch.setattr(auto.race, "time_in_turns", machine.time)
    monkeypatch.setattr(auto, "computes_bf16", lambda: False)
    monkeypatch.setattr(auto, "variants", lambda _: [])
    return machine
