"""The notebook in examples/ runs from its first to its last cell."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "folder_to_engine.ipynb"


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell has printed and returned."""
    return "".join(one.get("text", "") or str(one.get("data", "")) for one in cell.outputs)


def test_it_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    here = {"metadata": {"path": str(tmp_path)}}
    done = NotebookClient(notebook, timeout=300, startup_timeout=300, resources=here).execute()
    codes = [cell for cell in done.cells if cell.cell_type == "code"]
    assert (tmp_path / "runs/scratches/report.html").exists()
    assert "model.int8-cpu.onnx" in printed(codes[2])
    assert "scratch" in printed(codes[3])
    assert "image/png" in printed(codes[4])
    assert "scratches" in printed(codes[5])
    assert printed(codes[6])
