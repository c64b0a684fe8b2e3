"""Rasters as chunks: how many, what an earlier run left of them, and the files as one result."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.cluster.scenes import LABELS, PROBABILITIES, ChunkFiles, Scene, chunk_file, prepared, rows_for
from deploy.errors import UserError
from deploy.raster import ArraySource, Options
from deploy.raster.chunks import region, region_read
from deploy.raster.opening import GeoFile
from deploy.raster.predict import plan
from tests.deploy.raster.networks import conv_model, sar

OPTIONS = Options(memory=1, probabilities="uint8")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    grid = plan(conv_model(), ArraySource(sar(700, 1100)), OPTIONS)
    return Scene(GeoFile(Path("in.tif"), None), "out.tif", "1", grid, OPTIONS, 3, tmp_path / "chunks", rows=5)


def fill(scene: Scene) -> np.ndarray:
    """Write all chunks of a random result, and return it: 3×H×W, the first plane as labels, too."""
    result = np.random.default_rng(0).integers(0, 255, (3, 700, 1100), np.uint8)
    scene.folder.mkdir()
    for chunk in scene.chunks():
        where = region(scene.grid, chunk)
        part = result[:, where.top : where.bottom, where.left : where.right]
        np.save(chunk_file(scene.folder, LABELS, chunk), part[0])
        np.save(chunk_file(scene.folder, PROBABILITIES, chunk), part)
    return result


def test_files_are_the_whole_result(scene):
    result = fill(scene)
    assert len(scene.chunks()) == 15
    assert len(scene.grid.blocks) == 5
    labels, planes = ChunkFiles(scene, LABELS), ChunkFiles(scene, PROBABILITIES)
    assert (labels.planes, planes.planes, planes.dtype) == (1, 3, np.uint8)
    for top, bottom in ((0, 700), (3, 4), (100, 612)):
        np.testing.assert_array_equal(labels.read(0, top, bottom), result[0, top:bottom])
        np.testing.assert_array_equal(planes.read(2, top, bottom), result[2, top:bottom])


def test_a_damaged_chunk_is_named(scene):
    fill(scene)
    path = chunk_file(scene.folder, LABELS, scene.chunks()[1])
    np.save(path, np.zeros((2, 2), np.uint8))
    with pytest.raises(UserError, match=rf"{path.name}: is damaged; remove it and continue with --resume"):
        ChunkFiles(scene, LABELS).read(0, 0, 700)
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=rf"{path.name}: cannot be read"):
        ChunkFiles(scene, LABELS).read(0, 0, 700)


def test_chunks_of_an_earlier_run_stay_if_the_input_is_the_same(scene):
    first, changed = prepared(scene, 5)
    assert (first.rows, changed) == (5, False)
    finished = first.chunks()[2]
    np.save(chunk_file(scene.folder, LABELS, finished), np.zeros((1, 1), np.uint8))
    again, changed = prepared(scene, 9)
    assert (again.rows, changed) == (5, False)
    assert again.missing() == [one for one in again.chunks() if one != finished]
    other, changed = prepared(replace(scene, stamp="2"), 9)
    assert (other.rows, changed) == (9, True)
    assert len(other.missing()) == len(other.chunks())


@pytest.mark.parametrize(
    ("threads", "scenes", "rows"),
    [(1, 1, 16), (2, 1, 13), (4, 1, 10), (64, 1, 4), (1, 50, 16), (64, 50, 16)],
)
def test_rows_keep_all_threads_busy_without_running_much_twice(scene, threads, scenes, rows):
    assert scene.grid.count == 75
    assert rows_for([scene] * scenes, threads) == rows


def test_a_worker_gets_only_the_files_that_its_chunk_needs(scene, monkeypatch):
    asked = []
    monkeypatch.setattr(GeoFile, "within", lambda self, *window: asked.append(window) or self)
    chunk = scene.chunks()[4]
    assert scene.only(chunk) == scene
    where = region_read(scene.grid, chunk)
    assert asked == [(where.top, where.left, where.height, where.width)]
