"""The commands `info` and `verify`, and errors as one line."""

import subprocess
import sys

import msgspec
import numpy as np
import pytest

from deploy.backends.proof import MIN_AGREEMENT
from deploy.build.steps import BUDGETS
from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.engine_files import LayerSummary, read_sidecar, record_verdict, write_engine
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN, INT8_CPU, MODEL
from deploy.cli import main
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import atomic_write
from tests.conftest import ROOT
from tests.deploy.precisions import add_engine
from tests.deploy.tiny import make_bundle, make_manifest


def test_info(bundle, capsys):
    assert main(["info", str(bundle)]) == 0
    text = capsys.readouterr().out
    for part in (
        "tiny-rgb: segmentation, 3 classes",
        "uint8 NHWC, 32×48, stretch",
        "R: mean 120, std 50",
        "labels: uint8 N×32×48, label id",
        "1: green #1ec81e",
        "model.onnx:",
        "bytes, fp32",
        "miou: 0.5",
        "command: tests",
    ):
        assert part in text


def test_verify_passes_a_good_bundle(bundle, capsys):
    assert main(["verify", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "2 files match" in text
    assert "100.000 %" in text
    assert "passed" in text


def test_verify_fails_a_model_that_answers_otherwise(bundle, tmp_path, capsys):
    golden = read_golden(bundle)
    golden["labels"][0, :2] = (golden["labels"][0, :2] + 1) % 3
    golden["logits"][0, 0, 0, 0] += 7
    with atomic_write(tmp_path / "golden.npz") as file:
        np.savez(file, **golden)
    other = tmp_path / "other"
    write_bundle(other, make_manifest(), {MODEL: bundle / MODEL, GOLDEN: tmp_path / "golden.npz"})
    assert main(["verify", str(other)]) == 1
    text = capsys.readouterr().out
    assert "FAILED" in text
    assert "96.875 %" in text
    assert "difference of logits 7" in text


@pytest.mark.parametrize(("share", "code"), [(2e-3, 1), (2e-4, 0)])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_verify_sees_a_changed_weight_that_changes_no_golden_label(
    bundle, tmp_path, capsys, backend, share, code
):
    pytest.importorskip(backend)
    golden = read_golden(bundle)
    golden["logits"] *= np.float32(1 + share)
    with atomic_write(tmp_path / "golden.npz") as file:
        np.savez(file, **golden)
    other = tmp_path / "other"
    write_bundle(other, make_manifest(), {MODEL: bundle / MODEL, GOLDEN: tmp_path / "golden.npz"})
    assert main(["verify", str(other), "--backend", backend, "--precision", "fp32"]) == code
    text = capsys.readouterr().out
    assert "labels agree on 100.000 %" in text
    assert " (at most " in text
    assert ("FAILED" in text) == bool(code)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "abacus"], "unknown backend 'abacus'"),
        (["--precision", "int4"], "unknown precision 'int4'"),
        (["--precision", "fp16"], "has no fp16 model"),
        (["--backend", "tensorrt"], "has no engine for tensorrt"),
    ],
)
def test_what_cannot_be_had_is_one_line(int8_bundle, images, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["predict", str(int8_bundle), str(images)], ["verify", str(int8_bundle)]):
        with pytest.raises(UserError, match=message):
            main([*command, *options])


def test_verify_asks_less_of_int8(int8_bundle, bundle, tmp_path, capsys):
    """Its golden outputs are those of fp32."""
    golden = read_golden(bundle)
    golden["labels"][0, 0, :30] = (golden["labels"][0, 0, :30] + 1) % 3  # 1 % of the pixels
    with atomic_write(tmp_path / "golden.npz") as file:
        np.savez(file, **golden)
    other = tmp_path / "other"
    files = {MODEL: bundle / MODEL, INT8_CPU: bundle / MODEL, GOLDEN: tmp_path / "golden.npz"}
    write_bundle(other, make_manifest(), files)
    assert main(["verify", str(other), "--backend", "onnxruntime"]) == 0
    assert (
        "onnxruntime int8: 2 golden inputs, labels agree on 99.023 % (at least 98 %)"
        in capsys.readouterr().out
    )
    assert main(["verify", str(other), "--backend", "onnxruntime", "--precision", "fp32"]) == 1
    assert (
        "onnxruntime fp32: 2 golden inputs, labels agree on 99.023 % (at least 99.9 %)"
        in capsys.readouterr().out
    )
    assert main(["verify", str(int8_bundle), "--precision", "int8"]) == 1  # another network altogether


def test_verify_asks_no_more_than_the_gates():
    assert MIN_AGREEMENT["int8"] <= BUDGETS["int8"].min_agreement
    assert MIN_AGREEMENT["fp16"] <= BUDGETS["fp16"].min_agreement


def test_info_shows_engines(tmp_path, capsys):
    make_bundle(tmp_path / "bundle")
    engine = add_engine(tmp_path / "bundle", "tensorrt", "fp16")
    layers = LayerSummary(convolutions=30, int8_convolutions=28, conversions=2, float_layers=("a", "b"))
    sidecar = msgspec.structs.replace(
        read_sidecar(engine),
        backend="tensorrt-rtx",
        precision="int8",
        targets=("sm86", "sm89"),
        layers=layers,
    )
    write_engine(tmp_path / "bundle", "rtx", bytes(2_500_000), sidecar)
    add_engine(tmp_path / "bundle", name="lost").with_suffix(".json").unlink()
    assert main(["info", str(tmp_path / "bundle")]) == 0
    lost, rtx, fp16 = capsys.readouterr().out.splitlines()[-3:]
    assert lost.startswith("engine   lost.engine: ")
    assert "no sidecar" in lost
    assert rtx == (
        "engine   rtx.engine: tensorrt-rtx 11.4.0, int8, for sm86, sm89, 2.5 MB, 28 of 30 convolutions in INT8"
    )
    assert fp16 == "engine   tensorrt-fp16.engine: tensorrt 11.4.0, fp16, for Orin (8.7), 0.0 MB"


def test_info_marks_engines_that_are_not_to_be_used(tmp_path, capsys):
    make_bundle(tmp_path / "bundle")
    failed = add_engine(tmp_path / "bundle", name="failed")
    record_verdict(failed, False)
    old = msgspec.structs.replace(read_sidecar(failed), source_sha256="0" * 64, passed=True)
    write_engine(tmp_path / "bundle", "old", b"engine", old)
    main(["info", str(tmp_path / "bundle")])
    failed, old = capsys.readouterr().out.splitlines()[-2:]
    assert failed.endswith(", FAILED its gate")
    assert old.endswith(", of an older model")


def test_only_lint_needs_onnx_by_itself(bundle, monkeypatch, capsys):
    monkeypatch.setattr("deploy.cli.find_spec", lambda _: None)
    with pytest.raises(UserError, match="lint reads ONNX files: pip install"):
        main(["lint", str(bundle)])
    with pytest.raises(SystemExit) as left:
        main(["build", "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("usage: edgedistill build ")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "a/b"), OSError(5, "I/O", "a/b")])
def test_errors_of_the_system_are_one_line(error, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as left:
        exit_with_one_line(fail)
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: a/b: {error.strerror}\n"


def test_python_m_deploy_prints_one_line(bundle, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "deploy", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    good = run("info", str(bundle))
    assert (good.returncode, good.stderr) == (0, "")
    bad = run("verify", str(tmp_path))
    assert bad.returncode == 2
    assert (
        bad.stderr
        == f"error: {tmp_path}: has no manifest.json, so it is not a bundle; give the folder that the export wrote\n"
    )
