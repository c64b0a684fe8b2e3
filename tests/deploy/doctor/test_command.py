"""command.py: the same in words and as JSON, always with exit code 0, and without torch."""

import json

import pytest

from deploy.cli import main
from deploy.doctor import command
from deploy.doctor.checks import Part, Report
from deploy.measure.machine import describe
from tests.conftest import run_python
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import GPU

NOTHING = {"driver": "", "l4t": "", "gpu": False, "nodes": [], "container": False}


def report(nvidia=NOTHING, gpus=()) -> Report:
    broken = Part("tensorrt", False, "no such library\nand more", "pip install 'edgedistill[tensorrt-cu12]'")
    return Report(describe(), nvidia, list(gpus), [Part("onnxruntime", True, "1.32.0"), broken], [broken])


def test_on_this_machine_as_json_without_torch():
    done = run_python(
        "import sys; from deploy.cli import main; code = main(['doctor', '--json']);"
        "print(code, {'torch', 'onnx', 'openvino', 'tensorrt_rtx'} & set(sys.modules), file=sys.stderr)"
    )
    found = json.loads(done.stdout)
    assert done.stderr == "0 set()\n"
    ort = next(part for part in found["backends"] if part["name"] == "onnxruntime")
    assert ort["works"]
    assert "CPUExecutionProvider" in ort["detail"]
    assert found["machine"]["packages"]["numpy"]


def test_in_words(monkeypatch, capsys):
    monkeypatch.setattr(command, "examine", report)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "no GPU that can be used (no sign of one)" in out
    assert "  ✓ onnxruntime  1.32.0\n" in out
    assert r"  ✗ tensorrt     no such library\nand more" in out  # one line each
    assert "→ pip install 'edgedistill[tensorrt-cu12]'" in out


@pytest.mark.parametrize(
    ("nvidia", "gpus", "told"),
    [
        (NOTHING | {"l4t": "36.4.3", "container": True}, [], "(Jetson Linux 36.4.3, inside a container)"),
        (NOTHING | {"gpu": True}, [], "(a GPU on the PCI bus)"),
        (NOTHING, [vars(GPU)], "Fake GPU, compute capability 8.6, CUDA 13.0 (packages of 13.0, fake)"),
    ],
)
def test_gpus(nvidia, gpus, told):
    assert any(
        line.startswith("NVIDIA") and line.endswith(told) for line in command.lines(report(nvidia, gpus))
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("avx2", "avx_vnni"), "INT8 is fast (avx_vnni)"),
        (("avx2",), "INT8 may be no faster than fp32 (no VNNI, AMX or dot products)"),
        (("asimd", "asimddp"), "INT8 is fast (asimddp)"),
    ],
)
def test_arithmetic(flags, told, monkeypatch):
    monkeypatch.setattr(command, "cpu_flags", lambda: flags)
    monkeypatch.setattr(command, "computes_bf16", lambda: False)
    assert f"CPU         {told}" in list(command.lines(report()))
