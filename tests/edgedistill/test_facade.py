"""`import edgedistill`: what it offers, and what it does not load."""

import subprocess
import sys
from pathlib import Path

import pytest

import edgedistill
from deploy.cli import main as device
from deploy.errors import UserError
from edgedistill.__main__ import main
from tests.conftest import ROOT, run_python
from tests.deploy.tiny import make_bundle, make_image


def test_import_is_light():
    heavy = [
        "numpy",
        "torch",
        "onnx",
        "onnxruntime",
        "PIL",
        "msgspec",
        "deploy",
        "distill",
        "student",
        "teacher",
    ]
    result = run_python(f"import sys, edgedistill; print([name for name in {heavy} if name in sys.modules])")
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_names_are_those_of_the_packages_below():
    from deploy import load
    from deploy.raster.dataarray import predict_dataarray
    from distill.pipeline.pipeline import run
    from distill.run import preset

    assert (edgedistill.load, edgedistill.run, edgedistill.preset) == (load, run, preset)
    assert callable(edgedistill.build)
    assert edgedistill.raster is predict_dataarray
    assert dir(edgedistill) == sorted(edgedistill.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        edgedistill.lode  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_a_bundle_is_loaded_and_predicts(tmp_path: Path):
    make_bundle(tmp_path / "tiny.bundle")
    model = edgedistill.load(tmp_path / "tiny.bundle", "onnxruntime")
    assert model(make_image()).labels.shape == (32, 48)


def test_version_and_help(capsys):
    for words in (
        ["--version"],
        ["-V"],
        ["version"],
        ["predict", "--version"],
        ["run", "quick", "--version"],
    ):
        assert main(words) == 0
        assert capsys.readouterr().out == f"edgedistill {edgedistill.__version__}\n"
    assert device(["predict", "--version"]) == 0  # python -m deploy
    assert capsys.readouterr().out.startswith("edgedistill ")
    assert main(["--help"]) == 0
    assert "edgedistill --version" in capsys.readouterr().out


def test_a_foreign_package_of_the_same_name_is_refused(tmp_path: Path):
    (tmp_path / "deploy.py").touch()
    code = f"import sys; sys.path.append({str(ROOT)!r}); import deploy, edgedistill; edgedistill.load"
    result = run_python(code, cwd=tmp_path)
    assert result.returncode == 1
    assert f"'deploy' is already imported from {tmp_path / 'deploy.py'}" in result.stderr


@pytest.mark.parametrize("hostile", ["deploy.py", "deploy/__init__.py", "distill/__init__.py", "teacher.py"])
def test_a_folder_of_the_caller_does_not_shadow_ours(tmp_path: Path, hostile: str):
    file = tmp_path / hostile
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise RuntimeError('shadowed')")
    path = f"import sys; sys.path.append({str(ROOT)!r}); "
    imported = run_python(
        path + "import edgedistill; print(edgedistill.load, edgedistill.preset)", cwd=tmp_path
    )
    assert imported.returncode == 0, imported.stderr
    as_module = run_python(
        path + "import runpy; runpy.run_module('edgedistill', run_name='__main__')", cwd=tmp_path
    )
    assert "usage: edgedistill COMMAND" in as_module.stdout, as_module.stderr


@pytest.mark.parametrize(
    ("script", "usage"),
    [("distill/run.py", "usage: edgedistill run PRESET"), ("deploy/build_engine.py", "usage: ")],
)
def test_scripts_of_a_clone_work_from_any_directory(tmp_path: Path, script: str, usage: str):
    (tmp_path / "deploy.py").write_text("raise RuntimeError('shadowed')")
    result = subprocess.run(
        [sys.executable, ROOT / script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(usage)


def test_build_refuses_what_the_command_does_not_take(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"build has no option precisions \(did you mean precision\?\); it has backend,"
    ):
        edgedistill.build(tmp_path, precisions="fp16")
    with pytest.raises(UserError, match=r"argument --precision: invalid choice: 'int4'"):
        edgedistill.build(tmp_path, precision="int4")
    with pytest.raises(UserError, match=r"--batch 4,1,8: give one size, or smallest,best,largest"):
        edgedistill.build(tmp_path, batch=(4, 1, 8))
    with pytest.raises(UserError, match=r"manifest\.json"):
        edgedistill.build(tmp_path, sensitivity=False, targets=None)


def test_build_prints_what_the_command_prints(tmp_path: Path, capsys):
    make_bundle(tmp_path / "tiny.bundle")
    edgedistill.build(tmp_path / "tiny.bundle", backend="onnxruntime", precision="fp32")
    by_function = capsys.readouterr().out
    assert (
        main(["build", str(tmp_path / "tiny.bundle"), "--backend", "onnxruntime", "--precision", "fp32"]) == 0
    )
    assert by_function == capsys.readouterr().out
    assert "fp32 for onnxruntime" in by_function
