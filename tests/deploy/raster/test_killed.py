"""The command, killed without warning and resumed; and writes that the system refuses in the middle."""

import resource
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.manifest import MODEL
from deploy.cli import main
from deploy.errors import UserError
from deploy.raster.parts import journal_of
from deploy.tasks.segmentation import geotiff
from tests.conftest import ROOT
from tests.deploy.raster.networks import sar, write_tif
from tests.deploy.tiny import make_bundle

pytest.importorskip("rasterio", reason="rasterio is not installed here (pip install -e '.[geo]')")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "sar"
    make_bundle(folder, "sar", resize="tile")
    return folder


def arguments(bundle, folder, name, *more):
    files = (str(bundle), str(folder / "in.tif"), str(folder / name))
    return ["predict-raster", *files, "--backend", "onnxruntime", "--threads", "1", *more]


def test_killed_and_resumed_gives_the_same_file(bundle, tmp_path):
    write_tif(tmp_path / "in.tif", sar(1500, 700))
    main(arguments(bundle, tmp_path, "whole.tif"))
    journal = journal_of(tmp_path / "out.tif")
    command = [sys.executable, "-m", "deploy", *arguments(bundle, tmp_path, "out.tif")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while len(journal.entries()) < 3 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "out.tif").exists()
    assert len(journal.entries()) >= 3
    assert main(arguments(bundle, tmp_path, "out.tif", "--resume")) == 0
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_takes_no_more_of_the_geotiff(bundle, tmp_path, monkeypatch):
    """The system refuses what lies beyond 8 KB of a file."""
    write_tif(tmp_path / "in.tif", sar(300, 300))
    fill, handler = geotiff._fill, signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        fill(*arguments)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(geotiff, "_fill", limited)
            with pytest.raises(UserError, match=r"out\.tif: .*--resume") as caught:
                main(arguments(bundle, tmp_path, "out.tif"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.tif").exists()
    assert not list(tmp_path.glob(".*.tmp"))
    assert main(arguments(bundle, tmp_path, "out.tif", "--resume")) == 0


def test_grasp_bundle_is_refused(bundle, tmp_path):
    grasp = msgspec.structs.replace(read_manifest(bundle), task="grasp")
    write_bundle(tmp_path / "grasp", grasp, {MODEL: bundle / MODEL}, {MODEL: "fp32"})
    write_tif(tmp_path / "in.tif", sar(70, 70))
    with pytest.raises(UserError, match="predict-raster is for segmentation bundles"):
        main(arguments(tmp_path / "grasp", tmp_path, "out.tif"))
