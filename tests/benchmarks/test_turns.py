import time

from benchmarks.turns import WARMUP, calls_of, in_turns
from deploy.bundle.manifest import MODEL
from tests.deploy.tiny import make_bundle, make_image


def test_all_have_a_turn_in_each_round_after_a_call_that_is_not_counted():
    order = []
    times = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, turns=2, block=3)
    assert order == ["a"] * WARMUP + ["b"] * WARMUP + (["a"] * 4 + ["b"] * 4) * 2
    assert {name: len(values) for name, values in times.items()} == {"a": 6, "b": 6}


def test_a_turn_lasts_as_long_as_it_should():
    times = in_turns({"fast": lambda: time.sleep(0.001), "slow": lambda: time.sleep(0.03)}, 1, seconds=0.02)
    assert len(times["fast"]) > 1
    assert len(times["slow"]) == 1
    assert times["slow"][0] >= 30


def test_models_run_on_every_backend(tmp_path):
    make_bundle(tmp_path)
    calls = calls_of({"fp32": tmp_path / MODEL}, make_image())
    assert ("onnxruntime", "fp32") in calls
    assert all(set(call()) == {"labels", "logits"} for call in calls.values())
