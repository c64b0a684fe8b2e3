"""Measuring in turns, and the rules by which one setting wins."""

import numpy as np
import pytest

from deploy.backends import race
from deploy.backends.race import (
    Golden,
    affordable,
    contenders,
    most_frugal,
    open_within,
    right,
    time_in_turns,
)
from deploy.backends.setting import Setting
from tests.deploy.precisions import FakeEngine
from tests.deploy.tiny import make_manifest

ORT, OV = Setting("onnxruntime", "int8"), Setting("openvino", "int8")
ORT32, OV32, BF16 = Setting("onnxruntime", "fp32"), Setting("openvino", "fp32"), Setting("openvino", "bf16")


def test_measuring_takes_about_the_time_it_may(monkeypatch):
    """With a clock that advances only while an engine runs."""
    now = 0.0

    class Engine(FakeEngine):
        def run(self, batch):
            nonlocal now
            now += self._wait
            self.runs += 1
            return {"labels": np.zeros(1)}

    def runs(seconds):
        engines = {name: Engine(wait=seconds) for name in ("a", "b")}
        found = time_in_turns(engines, np.zeros((1, 32, 48, 3), np.uint8), 1.0)
        assert found == pytest.approx(dict.fromkeys(engines, 1000 * seconds))
        return [engine.runs for engine in engines.values()]

    monkeypatch.setattr(race.time, "perf_counter", lambda: now)
    assert runs(1.1) == [2, 2]  # to wake up, and timed once
    assert runs(0.001) == [race.BLOCKS * (1 + race.BLOCK)] * 2
    assert sum(runs(0.05)) <= 20 + 4  # at most one more block


def test_engines_take_turns():
    log = []

    class Engine(FakeEngine):
        def run(self, batch):
            log.append(self.name)
            return {}

    time_in_turns({name: Engine(name) for name in "ab"}, np.zeros(1), 60)
    assert "".join(log) == ("a" * (1 + race.BLOCK) + "b" * (1 + race.BLOCK)) * race.BLOCKS


def test_other_work_on_the_machine_does_not_count(monkeypatch):
    """Half of the runs of the faster engine are disturbed."""
    now, odd = 0.0, 0

    class Engine(FakeEngine):
        def run(self, batch):
            nonlocal now, odd
            odd += self.name == "fast"
            now += 0.05 if self.name == "fast" and odd % 2 else self._wait
            return {}

    monkeypatch.setattr(race.time, "perf_counter", lambda: now)
    found = time_in_turns({"fast": Engine("fast", wait=0.001), "slow": Engine(wait=0.002)}, np.zeros(1), 60)
    assert found["fast"] < found["slow"]


def test_only_what_passes_is_right():
    manifest = make_manifest()
    assert right(manifest, {ORT: 0.99, OV: 0.5, ORT32: 1.0, BF16: 0.99}) == [ORT, ORT32]
    assert right(manifest, {ORT: None, ORT32: None, BF16: None}) == [ORT, ORT32]


def test_where_nothing_passes_the_best_in_fp32_remain():
    manifest = make_manifest()
    assert right(manifest, {ORT: 0.97, ORT32: 0.9, OV32: 0.91, BF16: 0.96}) == [ORT32, OV32]
    assert right(manifest, {ORT32: 0.9, OV32: 0.95}) == [OV32]
    assert right(manifest, {ORT: 0.5, OV: 0.9}) == [OV]  # INT8 was asked for


def test_contenders_are_the_best_of_each_backend():
    assert contenders({ORT: 2.0, ORT32: 1.5, OV: 1.2, OV32: 1.1}) == [OV32]
    assert contenders({ORT: 1.4, ORT32: 1.5, OV: 1.2, OV32: 1.1}) == [OV32, ORT]


def test_of_equals_the_one_with_fewer_threads_wins():
    one, two = Setting("openvino", "int8", 1), Setting("openvino", "int8", 2)
    assert most_frugal({OV: 1.0, two: 1.01, one: 1.02}, cores=4) == one
    assert most_frugal({OV: 1.0, two: 1.01, one: 1.2}, cores=4) == two
    assert most_frugal({OV: 1.0, one: 1.2}, cores=4) == OV
    sleeping = Setting("onnxruntime", "int8", None, False)
    assert most_frugal({ORT: 1.0, sleeping: 1.02}, cores=4) == sleeping
    assert most_frugal({ORT: 1.0, sleeping: 1.1}, cores=4) == ORT


def test_slow_networks_are_tuned_less():
    assert affordable([ORT, OV, ORT32], 10.0, 2) == [ORT, OV, ORT32]
    assert affordable([ORT, OV, ORT32], 100.0, 2) == [ORT]
    assert affordable([ORT, OV, ORT32], 1000.0, 2) == []


def test_opening_stops_when_the_time_is_up(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(race.time, "perf_counter", lambda: next(now))
    assert list(open_within([ORT, OV, ORT32], lambda one: FakeEngine(one.name), 1.5)) == [ORT, OV]
    assert open_within([], lambda _: FakeEngine(), 1.5) == {}


def test_agreement_is_the_share_of_golden_labels():
    labels = np.zeros((2, 32, 48), np.uint8)
    labels[1, :8] = 1
    golden = Golden(np.zeros((2, 32, 48, 3), np.uint8), labels)
    assert golden.agreement(FakeEngine(label=0)) == pytest.approx(1 - 8 / 64)
    assert Golden(golden.inputs, None).agreement(FakeEngine()) is None
