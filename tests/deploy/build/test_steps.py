"""build/steps.py: INT8 and FP16 models made from a bundle and verified, and what can go wrong."""

import json

import msgspec
import pytest

pytest.importorskip("onnx")

from deploy import build_engine
from deploy.build.steps import make_fp16, make_quantized, verify_build
from deploy.bundle.bundle_files import extend_bundle, read_manifest, verify_files
from deploy.bundle.manifest import FP16, INT8, INT8_CPU, QUANTIZATION, RECEIPT
from deploy.errors import GateFailed, UserError
from deploy.evaluation.receipt import Budget, HopReceipt, Receipt
from deploy.loading import load
from deploy.quantize.options import Int8Options
from tests.deploy.labeled_bundle import contents, make_hard
from tests.deploy.quantize.placement import misplaced


def run(bundle, *arguments) -> int:
    return build_engine.main([str(bundle), "--backend", "onnxruntime", *arguments])


class TestInt8:
    def test_is_made_judged_and_run(self, bundle, capsys):
        assert run(bundle) == 0

        manifest = read_manifest(bundle)
        verify_files(bundle, manifest)
        assert {manifest.files[name].precision for name in (INT8, INT8_CPU)} == {"int8"}
        assert misplaced((bundle / INT8).read_bytes()) == []
        record = json.loads((bundle / QUANTIZATION).read_text())
        assert (record["images"], record["form"], list(record["forms"])) == (10, "cpu", ["cpu", "tensorrt"])
        assert manifest.metrics["int8 miou"] > 0.97
        table = capsys.readouterr().out
        # the only convolution makes the logits, which nothing rounds
        assert (
            "model.int8-cpu.onnx: only 0% of the network's multiply-accumulates are in INT8 on onnxruntime"
            in table
        )
        rows = [line.split("  ")[0] for line in table.splitlines()]
        assert [row for row in rows if row in ("onnx", "int8", "int8 cpu", "onnxruntime int8")] == [
            "onnx",
            "int8 cpu",
            "onnxruntime int8",
        ]
        receipt = json.loads((bundle / "engines" / "onnxruntime-int8.receipt.json").read_text())
        assert receipt["passed"]
        assert receipt["images"] == 4
        assert load(bundle, "onnxruntime").engine.name.endswith("int8")

    def test_is_not_made_twice_unless_asked(self, bundle, capsys):
        run(bundle)
        before = (bundle / QUANTIZATION).stat().st_mtime_ns
        capsys.readouterr()
        run(bundle)
        assert "quantized" not in capsys.readouterr().out
        assert (bundle / QUANTIZATION).stat().st_mtime_ns == before
        run(bundle, "--redo", "--calibrators", "min-max")
        assert json.loads((bundle / QUANTIZATION).read_text())["calibrator"] == "min-max"

    def test_sensitivity_is_printed_once_and_stored(self, bundle, capsys):
        run(bundle, "--sensitivity")
        assert capsys.readouterr().out.count("(all in float)") == 1
        assert (bundle / "sensitivity.svg").read_text().startswith("<svg")
        verify_files(bundle, read_manifest(bundle))
        run(bundle, "--redo")
        assert not (bundle / "sensitivity.svg").exists()  # it belonged to the previous model

    @pytest.mark.parametrize("option", [["--sensitivity"], ["--calibrators", "min-max, mse"]])
    def test_options_that_need_another_model_make_one(self, bundle, capsys, option):
        run(bundle)
        capsys.readouterr()
        run(bundle, *option)
        out = capsys.readouterr().out
        assert f"{option[0]}: quantizing again" in out
        assert "int8: quantized in" in out

    def test_a_damaged_model_is_repaired_by_making_it_again(self, bundle):
        run(bundle)
        for name in (INT8, INT8_CPU):
            (bundle / name).write_bytes(b"damaged")
        with pytest.raises(UserError, match="has 7 bytes"):
            run(bundle)
        assert run(bundle, "--redo") == 0
        verify_files(bundle, read_manifest(bundle))

    def test_layers_may_be_kept_in_float(self, bundle):
        with pytest.raises(UserError, match=r"float: no layer is called 'kernal'; close are kernel"):
            run(bundle, "--float", "kernal")  # codespell:ignore kernal
        with pytest.raises(UserError, match="leaves no layer to quantize"):
            run(bundle, "--float", "first,last")

    def test_over_the_budget_on_test_changes_nothing(self, bundle, tmp_path):
        before = contents(bundle)
        make_hard(tmp_path / "data", bundle, "test")
        options = Int8Options(budget=Budget(max_drop=0.02, min_agreement=0.97))
        with pytest.raises(GateFailed, match=r"hop onnx → int8"):
            make_quantized(bundle, tmp_path / "data", options, say=lambda _: None)
        assert contents(bundle) == before

    def test_an_impossible_budget_names_the_remedies(self, bundle, tmp_path):
        make_hard(tmp_path / "data", bundle, "val")
        before = contents(bundle)
        with pytest.raises(GateFailed, match=r"is over the budget.*QAT") as caught:
            run(bundle, "--max-drop", "0", "--min-agreement", "1")
        assert caught.value.exit_code == 1
        assert contents(bundle) == before


class TestFp16:
    def test_is_made_judged_and_run(self, bundle, capsys):
        assert run(bundle, "--precision", "fp16") == 0
        assert read_manifest(bundle).files[FP16].precision == "fp16"
        assert "onnxruntime fp16" in capsys.readouterr().out

    def test_returns_its_receipt(self, bundle, tmp_path):
        receipt = make_fp16(bundle, tmp_path / "data", say=lambda _: None)
        assert [hop.name for hop in receipt.hops] == ["onnx", "fp16"]


@pytest.mark.parametrize("way", ["here", "link"])
def test_the_bundle_may_be_given_by_another_path(bundle, tmp_path, monkeypatch, way):
    if way == "here":
        monkeypatch.chdir(bundle)
    else:
        (tmp_path / "link").symlink_to(bundle)
    assert run("." if way == "here" else tmp_path / "link") == 0
    verify_files(bundle, read_manifest(bundle))
    assert INT8 in read_manifest(bundle).files


def test_fp32_needs_nothing_new(bundle):
    before = contents(bundle)
    assert run(bundle, "--precision", "fp32") == 0
    assert contents(bundle) == before


class TestTorchRow:
    def add_receipt(self, bundle, images: int):
        hop = HopReceipt("torch", 0.5, {"boundary F1": 0.5}, 1.0, 1.0, 9.0, 0, Budget(), True, ())
        receipt = Receipt("made up", "test", images, "mIoU", (hop,), True, ())
        extend_bundle(bundle, {RECEIPT: msgspec.json.encode(receipt)})

    def test_recorded_on_the_same_images_it_comes_first(self, bundle, tmp_path):
        self.add_receipt(bundle, 4)
        receipt = verify_build(bundle, tmp_path / "data", "onnxruntime", "fp32", runs_here=True)
        assert [hop.name for hop in receipt.hops] == ["torch", "onnx", "onnxruntime fp32"]

    def test_recorded_on_others_it_is_left_out(self, bundle, tmp_path):
        self.add_receipt(bundle, 5)
        receipt = verify_build(bundle, tmp_path / "data", "onnxruntime", "fp32", runs_here=True)
        assert receipt.hops[0].name == "onnx"

    @pytest.mark.parametrize("content", [b"{}", b"\xff", b'{"hops": []}'])
    def test_a_foreign_receipt_is_left_out(self, bundle, tmp_path, content):
        extend_bundle(bundle, {RECEIPT: content})
        receipt = verify_build(bundle, tmp_path / "data", "onnxruntime", "fp32")
        assert receipt.hops[0].name == "onnx"
