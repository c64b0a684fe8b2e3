"""build_engine.py: compiled engines are verified; mistakes are refused before anything is built."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from deploy import build_engine, cli
from deploy.backends.tensorrt_gpu import cuda, signs
from deploy.bundle.manifest import QUANTIZATION
from deploy.errors import GateFailed, UserError
from deploy.evaluation.labeled_data import write_image
from deploy.files.images import write_png
from tests.deploy.labeled_bundle import contents, make_hard, make_labeled_bundle
from tests.deploy.two_classes import make_two_class_bundle, scene

DLA_ALONE = ["--backend", "tensorrt", "--precision", "fp16", "--dla", "0", "--no-gpu-fallback"]


@pytest.fixture
def bundle(tmp_path) -> Path:
    return make_labeled_bundle(tmp_path / "tiny.bundle")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "probe", lambda device=0: None)
    monkeypatch.setattr(cuda, "why_not", lambda device=0: "no driver")
    monkeypatch.setattr(signs, "look", signs.Signs)


def run(bundle, *arguments) -> int:
    return build_engine.main([str(bundle), "--backend", "onnxruntime", *arguments])


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--batch", "4,2,1"], r"--batch 4,2,1: give one size, or smallest,best,largest"),
            (["--calibrators", "median"], r"calibrators: median; choose from min-max"),
            (["--max-drop", "nan"], r"--max-drop nan: give a fraction from 0 to 1"),
            ([*DLA_ALONE, "--locate"], r"--locate: compares whole networks, and a DLA alone runs"),
            (["--backend", "onnxruntime-cuda"], r"needs no build, .* verify \S+ --backend onnxruntime-cuda$"),
            (["--dla", "0"], r"--dla: is for TensorRT, but this builds for the CPU"),
            (["--precision", "fp16", "--sensitivity"], r"--sensitivity: is for INT8, not --precision fp16"),
            (["--precision", "fp32", "--redo"], r"--redo: there is nothing to make again in fp32"),
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

    def test_a_val_image_that_does_not_fit_is_named(self, bundle, tmp_path):
        path = next((tmp_path / "data" / "val" / "images").iterdir())
        write_png(path, np.zeros((32, 48, 1), np.uint8))
        with pytest.raises(UserError, match=rf"val/images/{path.name}: image has 1 channel"):
            run(bundle)

    def test_a_missing_backend_is_known_before_anything_is_made(self, bundle, monkeypatch):
        before = contents(bundle)
        with pytest.raises(UserError, match="backend tensorrt: no usable NVIDIA GPU"):
            build_engine.main([str(bundle), "--backend", "tensorrt"])
        monkeypatch.setattr(build_engine.os, "access", lambda path, _: path != bundle.parent)
        with pytest.raises(UserError, match=rf"{bundle.parent}: cannot be written"):
            run(bundle)
        assert contents(bundle) == before

    def test_data_that_was_asked_for_must_be_there(self, bundle, tmp_path):
        with pytest.raises(UserError, match=r"none/test/images: no such folder"):
            run(bundle, "--precision", "fp32", "--data", str(tmp_path / "none"))

    @pytest.mark.filterwarnings("default")
    def test_a_partial_copy_of_the_data_is_warned_of(self, bundle, tmp_path, capsys):
        next((tmp_path / "data" / "test" / "images").iterdir()).unlink()
        run(bundle, "--precision", "fp32")
        assert "warning: " in (err := capsys.readouterr().err)
        assert "has only 3 of the 4 images" in err

    def test_no_bundle(self, tmp_path):
        with pytest.raises(UserError, match="no such folder"):
            run(tmp_path / "nothing")

    def test_a_full_disk_leaves_the_bundle(self, bundle, monkeypatch):
        before = contents(bundle)

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("deploy.bundle.bundle_files.os.fsync", full)
        with pytest.raises(UserError, match="the disk is full"):
            run(bundle)
        assert contents(bundle) == before
        assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []


class TestBackend:
    def test_auto_without_a_gpu_is_the_cpu_and_says_so(self, bundle, capsys):
        assert build_engine.main([str(bundle), "--precision", "fp32"]) == 0
        assert "on the CPU (no NVIDIA GPU here" in capsys.readouterr().out

    def test_auto_says_why_a_gpu_is_not_used(self, monkeypatch):
        monkeypatch.setattr(signs, "look", lambda: signs.Signs(gpu=True))
        backend, why = build_engine.choose_backend("auto")
        assert backend == "auto"
        assert why.startswith(" on the CPU (no usable NVIDIA GPU: no driver; --backend tensorrt-rtx can")

    def test_auto_with_a_gpu_takes_what_is_installed(self, monkeypatch):
        monkeypatch.setattr(cuda, "why_not", lambda device: "")
        monkeypatch.setattr(build_engine, "find_spec", lambda name: name == "tensorrt_rtx" or None)
        assert build_engine.choose_backend("auto") == ("tensorrt-rtx", "")
        monkeypatch.setattr(build_engine, "find_spec", lambda _: None)
        assert "no TensorRT: pip install" in build_engine.choose_backend("auto")[1]

    def test_tensorrt_rtx_compiles_for_another_machine(self, bundle, capsys):
        pytest.importorskip("tensorrt_rtx")
        assert build_engine.main([str(bundle), "--backend", "tensorrt-rtx", "--targets", "sm86"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"convolutions +1 +(0 +)?1\n", out)
        assert "onnx: only" not in out  # its only convolution is in INT8
        assert "not run here" in out
        assert "copy the bundle there" in out
        (engine,) = (bundle / "engines").glob("*.engine")
        assert engine.name.startswith("tensorrt-rtx-int8-b1-")
        assert (bundle / "engines" / "tensorrt-rtx-int8.receipt.json").is_file()
        assert json.loads((bundle / QUANTIZATION).read_text())["form"] == "tensorrt"
        capsys.readouterr()
        build_engine.main([str(bundle), "--backend", "tensorrt-rtx", "--targets", "sm86"])
        assert "built in" not in capsys.readouterr().out  # found in place

    def test_fp32_for_another_machine_is_judged_as_tf32(self, bundle, capsys):
        pytest.importorskip("tensorrt_rtx")
        rtx = ["--backend", "tensorrt-rtx", "--precision", "fp32"]
        assert build_engine.main([str(bundle), *rtx, "--targets", "sm86"]) == 0
        out = capsys.readouterr().out
        assert "in TF32 on GPUs from Ampere on (--no-tf32: in full float32)" in out
        assert re.search(r"^tf32, emulated .* passed$", out, re.MULTILINE)
        assert cli.main(["info", str(bundle)]) == 0
        assert "fp32 in TF32 from Ampere on, for sm86" in capsys.readouterr().out
        assert build_engine.main([str(bundle), *rtx, "--targets", "sm86", "--no-tf32"]) == 0
        assert "tf32" not in capsys.readouterr().out.lower()
        with pytest.raises(UserError, match="tf32: is for fp32, not for int8"):
            build_engine.main([str(bundle), "--backend", "tensorrt-rtx", "--no-tf32"])


class TestRemedies:
    """A gate that fails says what to do, and its figures once, in the table."""

    IMPOSSIBLE = ("--min-agreement", "1", "--max-drop", "0")

    def failure(self, bundle, capsys) -> tuple[str, str]:
        capsys.readouterr()
        with pytest.raises(GateFailed) as caught:
            run(bundle, *self.IMPOSSIBLE)
        return str(caught.value), capsys.readouterr().out

    def test_int8_of_before_is_quantized_again(self, bundle, capsys):
        assert run(bundle) == 0
        make_hard(bundle.parent / "data", bundle, "test")
        message, out = self.failure(bundle, capsys)
        assert message.startswith(
            "tiny.bundle: over the budget: int8 cpu; --redo quantizes again; --max-drop and"
        )
        assert "label agreement" in out
        assert "label agreement" not in message

    def test_int8_of_before_a_threshold_is_quantized_for_it(self, tmp_path, capsys):
        bundle = make_two_class_bundle(tmp_path / "student.bundle")
        for index in range(8):
            write_image(tmp_path / "data" / "calibration" / "images" / f"{index}", scene(index)[0])
        assert run(bundle) == 0
        assert cli.main(["threshold", str(bundle)]) == 0
        assert "int8: passed with the labels of before; `edgedistill build" in capsys.readouterr().out
        message, _ = self.failure(bundle, capsys)
        assert (
            "; the bundle has a threshold, and --redo quantizes for the labels that it decides; " in message
        )
