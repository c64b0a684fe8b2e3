"""benchmarks/raster.py as a user runs it, on rasters of a few tiles."""

import json
import subprocess
import sys

import pytest

from benchmarks import raster
from deploy.errors import UserError
from tests.conftest import ROOT

pytest.importorskip("rasterio", reason="rasterio is not installed here (pip install -e '.[geo]')")


def test_script_prints_a_table_and_writes_json(tmp_path):
    report = tmp_path / "report.json"
    options = ("--sizes", "100", "200", "--tile", "64", "--folder", str(tmp_path), "--json", str(report))
    done = subprocess.run(
        [sys.executable, "benchmarks/raster.py", *options, "--seconds", "0.1", "--compress", "deflate"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines() if line[:3] in ("100", "200")] == [
        ["100", "4"],
        ["200", "16"],
    ]
    content = json.loads(report.read_text())
    assert content["machine"]["packages"]["onnxruntime"]
    small, large = content["rows"]
    assert (small["size"], large["figures"]["run"]) == (100, 16)
    assert large["figures"]["peak_rss_bytes"] > large["figures"]["loaded_rss_bytes"] > 0
    assert 0 < large["busy"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("options", [("--sizes", "0"), ("--tile", "33"), ("--sizes", "100")])
def test_impossible_options(tmp_path, options):
    with pytest.raises(UserError, match="--sizes"):
        raster.main([*options, "--folder", str(tmp_path), "--json", str(tmp_path / "report.json")])
