"""build.py and build_engine.py: from a bundle to INT8, FP16 and engines, each proved; and what can go wrong."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("onnx")

from deploy import build_engine
from deploy.backends import cuda
from deploy.build import Int8Options, make_fp16, make_int8, prove
from deploy.bundle import (
    FP16,
    INT8,
    INT8_CPU,
    QUANTIZATION,
    RECEIPT,
    extend_bundle,
    read_manifest,
    verify_files,
)
from deploy.errors import GateFailed, UserError
from deploy.labelled import DataInfo, write_image, write_info, write_labelled
from deploy.runtime import load
from deploy.verify import Budget, HopReceipt, Receipt
from tests.deploy.tiny import make_bundle


def scene(seed: int) -> np.ndarray:
    """Patches that are clearly red, green or blue, with noise."""
    rng = np.random.default_rng(seed)
    patches = np.eye(3)[rng.integers(0, 3, (4, 6))].repeat(8, axis=0).repeat(8, axis=1)
    return (100 + 80 * patches + rng.normal(0, 10, (32, 48, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle with data beside it whose labels are what the fp32 model says, a few pixels left out."""
    folder = tmp_path / "tiny.bundle"
    make_bundle(folder)
    model = load(folder, "onnxruntime")
    for index in range(10):
        write_image(tmp_path / "data" / "calibration" / "images" / f"{index}", scene(index))
    for split, first in (("val", 20), ("test", 30)):
        images = [scene(first + index) for index in range(4)]
        valid = np.ones((32, 48), bool)
        valid[:3] = False
        samples = [(f"{i}", image, model(image).labels, valid) for i, image in enumerate(images)]
        write_labelled(tmp_path / "data" / split, samples)
    write_info(tmp_path / "data", DataInfo("made up", "test", 4))
    return folder


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "probe", lambda: None)


def run(bundle, *arguments) -> int:
    return build_engine.main([str(bundle), "--backend", "onnxruntime", *arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TestInt8:
    def test_is_made_judged_and_run(self, bundle, capsys):
        assert run(bundle) == 0

        manifest = read_manifest(bundle)
        verify_files(bundle, manifest)
        assert {manifest.files[name].precision for name in (INT8, INT8_CPU)} == {"int8"}
        assert json.loads((bundle / QUANTIZATION).read_text())["images"] == 10
        assert manifest.metrics["int8 miou"] > 0.97
        table = capsys.readouterr().out
        rows = [line.split("  ")[0] for line in table.splitlines()]
        assert [row for row in rows if row in ("onnx", "int8", "onnxruntime int8")] == [
            "onnx",
            "int8",
            "onnxruntime int8",
        ]
        receipt = json.loads((bundle / "engines" / "onnxruntime-int8.receipt.json").read_text())
        assert receipt["passed"]
        assert receipt["images"] == 4
        assert load(bundle).engine.name.endswith("int8")

    def test_is_not_made_twice_unless_asked(self, bundle, capsys):
        run(bundle)
        before = (bundle / QUANTIZATION).stat().st_mtime_ns
        capsys.readouterr()
        run(bundle)
        assert "quantized" not in capsys.readouterr().out
        assert (bundle / QUANTIZATION).stat().st_mtime_ns == before
        run(bundle, "--redo", "--calibrators", "min-max")
        assert json.loads((bundle / QUANTIZATION).read_text())["calibrator"] == "min-max"

    def test_sensitivity_is_printed_and_kept(self, bundle, capsys):
        run(bundle, "--sensitivity")
        assert "(all in float)" in capsys.readouterr().out
        assert (bundle / "sensitivity.svg").read_text().startswith("<svg")
        verify_files(bundle, read_manifest(bundle))

    def test_over_the_budget_on_test_changes_nothing(self, bundle, tmp_path):
        before = contents(bundle)
        wrong = tmp_path / "data" / "test"
        for mask in (wrong / "masks").iterdir():
            mask.unlink()
        model = load(bundle, "onnxruntime")
        rng = np.random.default_rng(0)  # a little noise around the means, where the classes nearly tie
        images = [rng.integers((118, 108, 98), (123, 113, 103), (32, 48, 3), np.uint8) for _ in range(4)]
        for image in (wrong / "images").iterdir():
            image.unlink()
        write_labelled(
            wrong,
            [(f"{i}", image, model(image).labels, np.ones((32, 48), bool)) for i, image in enumerate(images)],
        )
        options = Int8Options(budget=Budget(max_miou_drop=0.02, min_agreement=0.97))
        with pytest.raises(GateFailed, match=r"hop onnx → int8"):
            make_int8(bundle, tmp_path / "data", options, say=lambda _: None)
        assert contents(bundle) == before

    def test_an_impossible_budget_names_the_remedies(self, bundle):
        before = contents(bundle)
        with pytest.raises(GateFailed, match=r"is over the budget.*QAT") as caught:
            run(bundle, "--max-miou-drop", "-1")
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


def test_fp32_needs_nothing_new(bundle):
    before = contents(bundle)
    assert run(bundle, "--precision", "fp32") == 0
    assert contents(bundle) == before


class TestTorchRow:
    def add_receipt(self, bundle, images: int):
        hop = HopReceipt("torch", 0.5, (0.5,), 0.5, 0.5, 1.0, 1.0, 9.0, 0, Budget(), True, ())
        receipt = Receipt("made up", "test", images, (), (hop,), True, ())
        extend_bundle(bundle, {RECEIPT: msgspec.json.encode(receipt)})

    def test_recorded_on_the_same_images_it_comes_first(self, bundle, tmp_path):
        self.add_receipt(bundle, 4)
        receipt = prove(bundle, tmp_path / "data", "onnxruntime", "fp32", runs_here=True)
        assert [hop.name for hop in receipt.hops] == ["torch", "onnx", "onnxruntime fp32"]

    def test_recorded_on_others_it_is_left_out(self, bundle, tmp_path):
        self.add_receipt(bundle, 5)
        receipt = prove(bundle, tmp_path / "data", "onnxruntime", "fp32", runs_here=True)
        assert receipt.hops[0].name == "onnx"


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--batch", "4,2,1"], r"--batch 4,2,1: give one size, or smallest,best,largest"),
            (["--batch", "many"], r"--batch many: give one size"),
            (["--calibrators", "median"], r"calibrators: median; choose from min-max"),
            (["--data", "nowhere"], r"nowhere/calibration/images: no such folder.* give --data FOLDER"),
        ],
    )
    def test_are_one_line(self, bundle, arguments, message, monkeypatch):
        backend = "tensorrt-rtx" if "--batch" in arguments else "onnxruntime"
        if backend == "tensorrt-rtx":
            pytest.importorskip("tensorrt_rtx")
            arguments = [*arguments, "--precision", "fp32"]
        with pytest.raises(UserError, match=message) as caught:
            build_engine.main([str(bundle), "--backend", backend, *arguments])
        assert "\n" not in str(caught.value)

    def test_too_few_calibration_images(self, bundle, tmp_path):
        for index in range(5):
            (tmp_path / "data" / "calibration" / "images" / f"{index}.png").unlink()
        with pytest.raises(UserError, match=r"has 5 images with a valid pixel; at least 8 are needed"):
            run(bundle)

    def test_no_bundle(self, tmp_path):
        with pytest.raises(UserError, match="no such folder"):
            run(tmp_path / "nothing")

    def test_a_full_disk_leaves_the_bundle(self, bundle, monkeypatch):
        before = contents(bundle)

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("deploy.bundle.os.fsync", full)
        with pytest.raises(UserError, match="the disk is full"):
            run(bundle)
        assert contents(bundle) == before
        assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []


class TestBackend:
    def test_auto_without_a_gpu_is_the_cpu_and_says_so(self, bundle, capsys):
        assert build_engine.main([str(bundle), "--precision", "fp32"]) == 0
        assert "on the CPU (no NVIDIA GPU here" in capsys.readouterr().out

    def test_auto_with_a_gpu_takes_what_is_installed(self, monkeypatch):
        monkeypatch.setattr(cuda, "probe", lambda: object())
        monkeypatch.setattr(build_engine, "find_spec", lambda name: name == "tensorrt_rtx" or None)
        assert build_engine.choose_backend("auto") == ("tensorrt-rtx", "")
        monkeypatch.setattr(build_engine, "find_spec", lambda _: None)
        assert "no TensorRT: pip install" in build_engine.choose_backend("auto")[1]

    def test_tensorrt_rtx_compiles_for_another_machine(self, bundle, capsys):
        pytest.importorskip("tensorrt_rtx")
        assert build_engine.main([str(bundle), "--backend", "tensorrt-rtx", "--targets", "sm86"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"convolutions +1 +(0 +)?1\n", out)
        assert "not run here" in out
        assert "copy the bundle there" in out
        (engine,) = (bundle / "engines").glob("*.engine")
        assert engine.name.startswith("tensorrt-rtx-int8-b1-")
        capsys.readouterr()
        build_engine.main([str(bundle), "--backend", "tensorrt-rtx", "--targets", "sm86"])
        assert "built in" not in capsys.readouterr().out  # found in place
