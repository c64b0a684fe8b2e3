"""Which precisions `auto` may take."""

import msgspec
import pytest

from deploy.backends.proof import failed_here, may_measure, needed_agreement, passes
from deploy.backends.setting import Setting
from deploy.bundle.bundle_files import extend_bundle, read_manifest
from deploy.bundle.manifest import INT8_CPU, golden_metric
from tests.deploy.precisions import make_precisions
from tests.deploy.tiny import make_bundle

INT8 = Setting("onnxruntime", "int8")
FP32 = Setting("onnxruntime", "fp32")
BF16 = Setting("openvino", "bf16")


@pytest.fixture
def folder(tmp_path):
    return make_precisions(tmp_path / "bundle", "int8")


def record(folder, agreement):
    """What the gate of INT8 writes when it is passed."""
    extend_bundle(folder, {}, {}, {golden_metric("int8"): agreement})


def test_int8_needs_the_record_of_its_gate(folder, tmp_path):
    assert not may_measure(folder, read_manifest(folder), INT8)
    record(folder, 0.99)
    assert may_measure(folder, read_manifest(folder), INT8)
    make_bundle(tmp_path / "plain")
    extend_bundle(tmp_path / "plain", {}, {}, {golden_metric("int8"): 0.99})  # a record without a model
    assert INT8_CPU not in read_manifest(tmp_path / "plain").files
    assert not may_measure(tmp_path / "plain", read_manifest(tmp_path / "plain"), INT8)


def test_fp32_and_bf16_need_no_record(folder):
    assert may_measure(folder, read_manifest(folder), FP32)
    assert may_measure(folder, read_manifest(folder), BF16)


def test_what_the_build_found_over_budget_here_is_out(folder):
    record(folder, 0.99)
    engines = folder / "engines"
    engines.mkdir()
    receipt = engines / "onnxruntime-int8.receipt.json"
    for content, failed in ((b'{"passed": false}', True), (b'{"passed": true}', False), (b"{", False)):
        receipt.write_bytes(content)
        assert failed_here(folder, INT8) == failed
        assert may_measure(folder, read_manifest(folder), INT8) != failed
    receipt.write_bytes(b'{"passed": false}')
    assert not failed_here(folder, msgspec.structs.replace(INT8, backend="openvino"))


def test_the_recorded_agreement_is_the_measure(folder):
    assert needed_agreement(read_manifest(folder), "int8") == 0.98
    record(folder, 0.95)
    manifest = read_manifest(folder)
    assert needed_agreement(manifest, "int8") == pytest.approx(0.94)
    assert passes(manifest, INT8, 0.945)
    assert not passes(manifest, INT8, 0.935)
    assert passes(manifest, FP32, 0.999)
    assert not passes(manifest, FP32, 0.998)


def test_without_golden_labels_bf16_has_no_proof(folder):
    manifest = read_manifest(folder)
    assert passes(manifest, FP32, None)
    assert passes(manifest, INT8, None)
    assert not passes(manifest, BF16, None)
    assert passes(manifest, BF16, 0.995)
    assert not passes(manifest, BF16, 0.994)
