"""benchmarks/clusters.py as a user runs it, on a few small inputs."""

import json
import subprocess
import sys

import pytest

from benchmarks import clusters
from deploy.errors import UserError
from tests.conftest import ROOT

pytest.importorskip("rasterio", reason="rasterio is not installed here (pip install -e '.[geo]')")


def test_script_prints_a_table_and_writes_json(tmp_path):
    report = tmp_path / "report.json"
    small = (
        "--images",
        "3",
        "--size",
        "60",
        "--side",
        "200",
        "--tile",
        "64",
        "--channels",
        "8",
        "--turns",
        "1",
    )
    done = subprocess.run(
        [sys.executable, "benchmarks/clusters.py", *small, "--folder", tmp_path, "--json", report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(report.read_text())["rows"]
    ways = ["one process", "1 worker", "2 workers"]
    assert [(row["inputs"], row["way"]) for row in rows] == [
        (kind, way) for kind in ("images", "raster") for way in ways
    ]
    for row in rows:
        assert row["seconds"] > 0
        assert len(row["turns"]) == 1
        assert row["way"] != "1 worker" or (row["speedup"], row["cpu"]) == (1, 1)
        assert f"{row['seconds']:.2f}" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    "options", [("--workers", "2"), ("--workers", "1", "0"), ("--side", "100"), ("--images", "0")]
)
def test_impossible_options(tmp_path, options):
    with pytest.raises(UserError, match="--"):
        clusters.main([*options, "--folder", str(tmp_path), "--json", str(tmp_path / "report.json")])
