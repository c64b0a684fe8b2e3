"""`edgedistill lint`: its output, its exit codes, and its refusal of files that are not models."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import FP16, INT8, INT8_CPU, MODEL
from deploy.errors import UserError
from deploy.lint import TARGETS, lint_command
from tests.deploy.lint.lint_examples import CONV, QUANTIZED, UNSIGNED, external, quantized, simple, weights
from tests.deploy.tiny import make_bundle, make_manifest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "network.onnx"
    path.write_bytes(QUANTIZED)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    files = {MODEL: CONV, FP16: CONV, INT8: QUANTIZED, INT8_CPU: UNSIGNED}
    precision = {MODEL: "fp32", FP16: "fp16", INT8: "int8", INT8_CPU: "int8"}
    write_bundle(folder, make_manifest(), files, precision)
    return folder


def checked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Files and targets that the command checked."""
    lint_command([*arguments, "--json"])
    return [(one["file"], one["target"]) for one in json.loads(capsys.readouterr().out)]


def test_clean_file(file: Path, capsys: pytest.CaptureFixture[str]):
    assert lint_command([str(file), "--target", "tensorrt-11"]) == 0
    title, coverage, last = capsys.readouterr().out.splitlines()
    assert title == "network.onnx on tensorrt-11"
    assert "1 of 1 convolutions in INT8 (100.0%" in coverage
    assert last == "no findings"


def test_errors_exit_with_1(file: Path, capsys: pytest.CaptureFixture[str]):
    file.write_bytes(UNSIGNED)
    assert lint_command([str(file), "--target", "tensorrt-11"]) == 1
    out = capsys.readouterr().out
    assert "  error   zero-point × 2\n" in out
    assert "          QuantizeLinear q: the zero point is 128, and TensorRT's parser takes only 0\n" in out
    assert "          → quantize symmetrically" in out
    assert out.splitlines()[-1] == "2 errors, 1 note"


def test_warnings_exit_with_0(file: Path, capsys: pytest.CaptureFixture[str]):
    assert lint_command([str(file), "--target", "onnxruntime"]) == 0
    assert "warning int8-activations" in capsys.readouterr().out


def test_many_places_of_one_rule_are_counted(file: Path, capsys: pytest.CaptureFixture[str]):
    nodes = " ".join(f"t{i} = Conv({f't{i - 1}' if i else 'x'}, w)" for i in range(6)) + " y = Identity(t5)"
    file.write_bytes(
        simple(nodes, {"w": weights(4, 4, 1, np.float16)}, x="float16[1,4,16,16]", y="float16[]")
    )
    lint_command([str(file), "--target", "onnxruntime"])
    out = capsys.readouterr().out
    assert "warning float16-on-cpu × 6" in out
    assert out.count("          Conv t") == 3
    assert "          … and 3 more\n" in out
    lint_command([str(file), "--target", "onnxruntime", "--json"])
    [one] = json.loads(capsys.readouterr().out)
    assert set(one) == {"file", "target", "findings", "forecast"}
    assert len(one["findings"]) == 6
    assert one["forecast"]["convolutions"] == 6


def test_a_file_is_checked_for_all_but_the_dla(file: Path, capsys: pytest.CaptureFixture[str]):
    targets = [target for target in TARGETS if target != "dla"]
    assert checked([str(file)], capsys) == [("network.onnx", target) for target in targets]
    assert checked([str(file), "--target", "dla"], capsys) == [("network.onnx", "dla")]


def test_targets_with_the_same_findings_are_one(file: Path, capsys: pytest.CaptureFixture[str]):
    lint_command([str(file)])
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("network.onnx on ")]
    assert titles == [
        "network.onnx on tensorrt-10, tensorrt-11, tensorrt-rtx",
        "network.onnx on onnxruntime",
        "network.onnx on openvino",
    ]


def test_files_of_a_bundle_are_checked_for_what_they_are_made_for(
    bundle: Path, capsys: pytest.CaptureFixture[str]
):
    compiled, cpu = ["tensorrt-10", "tensorrt-11", "tensorrt-rtx"], ["onnxruntime", "openvino"]
    expected = {MODEL: compiled + cpu, FP16: compiled, INT8: compiled, INT8_CPU: cpu}
    pairs = sorted((name, target) for name, targets in expected.items() for target in targets)
    assert sorted(checked([str(bundle)], capsys)) == pairs
    assert sorted(checked([str(bundle), "--precision", "int8"], capsys)) == [
        pair for pair in pairs if pair[0] in (INT8, INT8_CPU)
    ]
    assert lint_command([str(bundle)]) == 0


def test_tiny_bundle_is_free_of_errors(tmp_path: Path):
    make_bundle(tmp_path / "tiny")
    assert lint_command([str(tmp_path / "tiny")]) == 0


def test_unknown_precision(bundle: Path):
    with pytest.raises(UserError, match="has no ONNX model of precision int4; it has fp16, fp32, int8"):
        lint_command([str(bundle), "--precision", "int4"])


def test_precision_is_for_bundles(file: Path):
    with pytest.raises(UserError, match=r"--precision int8: .* is one file; give a bundle"):
        lint_command([str(file), "--precision", "int8"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"network\.onnx: is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"network\.onnx: is not an ONNX model"),
        (QUANTIZED[: len(QUANTIZED) // 2], r"network\.onnx: is not an ONNX model"),
    ],
    ids=["empty", "foreign", "cut off"],
)
def test_what_is_no_model_is_one_line(file: Path, content: bytes, message: str):
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        lint_command([str(file)])
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.onnx: cannot be read \(No such file or directory\)"):
        lint_command([str(tmp_path / "gone.onnx")])


@pytest.mark.parametrize("name", [INT8, ""], ids=["file", "bundle"])
def test_unreadable_file(name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch):
    def deny(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", deny)  # root may read everything
    monkeypatch.setattr("deploy.lint.command.verify_files", deny)
    with pytest.raises(UserError, match=r"^/.*: cannot be read \(Permission denied\); [^\n]*$"):
        lint_command([str(bundle / name)])


def test_usage_names_the_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        lint_command(["--help"])
    assert capsys.readouterr().out.startswith("usage: edgedistill lint ")


def test_folder_without_a_bundle(tmp_path: Path):
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        lint_command([str(tmp_path)])


def test_damaged_bundle(bundle: Path):
    (bundle / INT8).write_bytes(quantized())
    with pytest.raises(UserError, match=r"model\.int8\.onnx: has \d+ bytes instead"):
        lint_command([str(bundle)])


def test_external_data_lie_beside_the_file(file: Path, capsys: pytest.CaptureFixture[str]):
    file.write_bytes(external(CONV))
    assert lint_command([str(file), "--target", "onnxruntime"]) == 1
    assert "tensor w: its data are in gone.bin, which is not beside the model" in capsys.readouterr().out
    (file.parent / "gone.bin").write_bytes(weights().tobytes())
    assert lint_command([str(file), "--target", "onnxruntime"]) == 0
