"""The ways to run a network, and their variants."""

import pytest

from deploy import host
from deploy.backends.setting import Setting, computes_bf16, variants


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(host, "physical_cores", lambda: 6)


def found(setting):
    return [(one.threads, one.spinning) for one in variants(setting)]


def test_threads_are_halved_down_to_one(cores):
    assert found(Setting("openvino", "int8")) == [(6, True), (3, True), (1, True)]


def test_onnx_runtime_may_sleep_but_not_with_one_thread(cores):
    wake = [(6, True), (3, True), (1, True)]
    assert found(Setting("onnxruntime", "int8")) == [*wake, (None, False), (6, False), (3, False)]


def test_a_number_of_threads_that_was_asked_for_stays(cores):
    assert found(Setting("openvino", "fp32", 2)) == []
    assert found(Setting("onnxruntime", "fp32", 2)) == [(2, False)]
    assert found(Setting("onnxruntime", "fp32", 1)) == []


def test_in_words():
    assert str(Setting("openvino", "bf16")) == "openvino bf16"
    assert str(Setting("openvino", "int8", 1)) == "openvino int8, 1 thread"
    assert str(Setting("onnxruntime", "int8", 4, False)) == "onnxruntime int8, 4 threads, without spinning"


@pytest.mark.parametrize(
    ("flags", "found"), [(("avx2",), False), (("avx512_bf16",), True), (("amx_bf16",), True), ((), False)]
)
def test_bf16_needs_a_cpu_that_computes_it(monkeypatch, flags, found):
    monkeypatch.setattr(host, "cpu_flags", lambda: flags)
    assert computes_bf16() == found
