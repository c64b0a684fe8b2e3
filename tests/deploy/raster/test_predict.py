"""Prediction from arrays: seams, blocks, batches, no data, odd sizes, refusals."""

import threading
import tracemalloc

import numpy as np
import pytest

from deploy.errors import UserError
from deploy.loading import load
from deploy.raster import NODATA, ArraySource, Options, predict_raster
from deploy.raster.sources import ArraySink
from tests.deploy.raster.networks import (
    SPEC,
    Counting,
    conv_model,
    predict,
    raster_logits,
    sar,
    whole_logits,
)
from tests.deploy.tiny import make_bundle, make_image

STEP = 48  # tiles of 64 that overlap by 16


def test_equals_the_whole_image_also_at_seams():
    """The network sees 3 pixels in each direction; the outer 4 of the overlap have almost no weight."""
    image = sar(200, 300)
    logits = raster_logits(conv_model(), image, Options(overlap=16))
    np.testing.assert_allclose(logits, whole_logits(image), atol=1e-4)


def test_without_overlap_it_differs_at_the_seams_alone():
    image = sar(192, 320)
    difference = np.abs(raster_logits(conv_model(), image, Options(overlap=0)) - whole_logits(image)).max(
        axis=0
    )
    assert difference.max() > 0.1
    inner = np.ones_like(difference, bool)
    for edge in range(64, 320, 64):
        inner[edge - 3 : edge + 3] = inner[:, edge - 3 : edge + 3] = False
    assert difference[inner].max() < 1e-4


@pytest.mark.parametrize("overlap", [8, 16, 40])
def test_no_seam_is_visible(overlap):
    """Steps between neighboring columns are no larger where a tile begins or ends than elsewhere."""
    image = sar(128, 500, seed=1)
    steps = np.abs(np.diff(raster_logits(conv_model(), image, Options(overlap=overlap)), axis=2)).mean(
        axis=(0, 1)
    )
    stride = 64 - overlap
    seams = [x + side for x in range(stride, 500 - 64, stride) for side in (-1, overlap - 1)]
    elsewhere = np.delete(steps, seams)
    assert abs(steps[seams].mean() / elsewhere.mean() - 1) < 0.05


class Moody:
    """An engine whose scores are constant over a tile and differ from tile to tile, as with global context."""

    name, file = "moody", None

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def run(self, batch):
        shape = (len(batch), 3, *batch.shape[2:])
        return {
            "logits": np.broadcast_to(self.rng.uniform(0, 1, (len(batch), 3, 1, 1)), shape).astype(np.float32)
        }


@pytest.mark.parametrize(("overlap", "step"), [(32, 0.1), (16, 0.2), (0, 1.0)])
def test_tiles_that_disagree_meet_gently(overlap, step):
    """Scores differ by up to 1 from tile to tile; blended, by no more than `step` from pixel to pixel."""
    logits = raster_logits(conv_model(Moody()), sar(200, 300), Options(overlap=overlap))
    largest = max(np.abs(np.diff(logits, axis=axis)).max() for axis in (1, 2))
    assert step / 3 < largest < step


@pytest.mark.parametrize("options", [Options(memory=1), Options(batch=3), Options(batch=64, memory=1)])
def test_blocks_and_batches_change_nothing(options):
    image = sar(150, 1100)
    np.testing.assert_allclose(
        raster_logits(conv_model(), image, options), raster_logits(conv_model(), image, Options()), atol=1e-5
    )


def test_memory_divides_the_raster_into_blocks():
    seen = []
    sink = ArraySink()
    sink.write = lambda piece, *_: seen.append(piece.block)
    predict_raster(conv_model(), ArraySource(sar(64, 3000)), sink, Options(memory=1))
    assert len(set(seen)) == 5


def test_probabilities():
    image = sar(100, 130)
    image[:20] = np.nan
    sink = predict(image, Options(probabilities="float32"))
    assert np.isnan(sink.probabilities[:, :20]).all()
    np.testing.assert_allclose(sink.probabilities[:, 20:].sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(sink.probabilities[:, 20:].argmax(axis=0), sink.labels[20:])
    small = predict(image, Options(probabilities="uint8")).probabilities
    assert (small[:, :20] == NODATA).all()
    assert small[:, 20:].max() <= 254
    np.testing.assert_allclose(small[:, 20:] / 254, sink.probabilities[:, 20:], atol=0.5 / 254 + 1e-6)


def test_tiles_without_data_are_not_run():
    image = sar(64 + 3 * STEP, 64 + 3 * STEP)
    image[:64, :] = np.nan
    image[:, :64] = np.inf
    engine = Counting()
    labels = predict(image, model=conv_model(engine)).labels
    assert engine.tiles == 9
    assert (labels[:64] == NODATA).all()
    assert (labels[:, :64] == NODATA).all()
    assert (labels[64:, 64:] < 3).all()


def test_all_without_data():
    engine = Counting()
    labels = predict(np.full((100, 100, 2), np.nan, np.float32), model=conv_model(engine)).labels
    assert engine.tiles == 0
    assert (labels == NODATA).all()


def test_min_valid_skips_tiles_and_labels_what_others_see():
    image = np.full((64, 112, 2), np.nan, np.float32)
    image[:, 52:] = sar(64, 60)
    engine = Counting()
    labels = predict(image, Options(min_valid=0.5), conv_model(engine)).labels
    assert engine.tiles == 1  # the first tile has data in 12 of its 64 columns, the second in 60
    assert (labels[:, :52] == NODATA).all()
    assert (labels[:, 52:] < 3).all()
    assert (predict(image, Options(min_valid=1.0)).labels == NODATA).all()


def test_pixels_seen_by_a_tile_alone_count_at_its_edge():
    image = sar(64, 112)
    image[:, 52:] = np.nan
    labels = predict(image, Options(min_valid=0.2)).labels  # the second tile is skipped: 4 of 64 columns
    assert (labels[:, :52] < 3).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (63, 65), (64, 64), (65, 64)])
def test_odd_sizes(size):
    labels = predict(sar(*size), Options(batch=2)).labels
    assert labels.shape == size
    assert labels.max() < 3


def test_padding_is_the_mean():
    image = sar(30, 40)
    padded = np.broadcast_to(np.float32(SPEC.mean), (64, 64, 2)).copy()
    padded[:30, :40] = image
    np.testing.assert_allclose(
        raster_logits(conv_model(), image, Options()), whole_logits(padded)[:, :30, :40], atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float64, np.int32])
def test_any_real_dtype_for_a_float_bundle(dtype):
    image = np.rint(sar(70, 90)).astype(np.int16)
    wanted = predict(image.astype(np.float32)).labels
    shown = np.where(image < 0, image, 0)
    if np.dtype(dtype).kind != "u":
        np.testing.assert_array_equal(predict(image.astype(dtype)).labels, wanted)
    else:
        assert predict((-shown).astype(dtype)).labels.max() < 3


def test_no_data_value_of_integers():
    image = np.rint(sar(70, 90)).astype(np.int16)
    image[:10, :, 1] = -9999
    labels = predict(image, nodata=-9999).labels
    assert (labels[:10] == NODATA).all()
    assert (labels[10:] < 3).all()


def test_memmap_and_uint8(tmp_path):
    make_bundle(tmp_path / "bundle", resize="tile")
    model = load(tmp_path / "bundle", "onnxruntime", 1)
    image = make_image("rgb", 0, (100, 160))
    image[:50, :40] = 0
    image[50:, :, 0] = 0  # a color, as the other channels are not 0
    stored = np.memmap(tmp_path / "raster", np.uint8, "w+", shape=image.shape)
    stored[:] = image
    labels = predict(stored, model=model, nodata=0).labels
    assert (labels[:50, :40] == NODATA).all()
    assert (labels == NODATA).sum() < 50 * 40 + 10
    plain = predict(image, Options(overlap=0), model)
    whole = model(image)
    assert (plain.labels == whole.labels).mean() > 0.6  # another overlap and stride; the same network


def test_report_counts_up_to_all_tiles():
    calls = []
    summary = predict_raster(
        conv_model(),
        ArraySource(sar(150, 1100)),
        ArraySink(),
        Options(memory=1),
        lambda *counts: calls.append(counts),
    )
    assert calls[0] == (0, summary.tiles)
    assert calls[-1] == (summary.tiles, summary.tiles)
    assert calls == sorted(calls)
    assert summary.run == summary.tiles


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((9, 9, 1), np.float32),
            r"has 1 band\(s\), the bundle wants 2 \(VV, VH\); take another raster",
        ),
        (np.zeros((9, 9, 3), np.float32), r"has 3 band\(s\).*--bands"),
        (np.zeros((9, 9, 2), np.complex64), "real numbers"),
        (np.zeros((0, 9, 2), np.float32), "shape"),
    ],
)
def test_rasters_that_do_not_fit(image, message):
    with pytest.raises(UserError, match=message):
        predict(image)


def test_uint8_bundle_refuses_other_dtypes(tmp_path):
    make_bundle(tmp_path / "bundle")
    with pytest.raises(UserError, match=r"the raster is uint16, the bundle wants uint8.*convert"):
        predict(np.zeros((9, 9, 3), np.uint16), model=load(tmp_path / "bundle", "onnxruntime", 1))


def test_grasp_model_is_refused():
    with pytest.raises(UserError, match="only segmentation bundles"):
        predict(sar(9, 9), model=object())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch": 0}, "batch is 0"), ({"min_valid": 1.5}, "min-valid is 1.5"), ({"memory": 0}, "memory is 0")],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


class Unreadable(ArraySource):
    def read_window(self, row, col, height, width):
        if row + height > 100:
            raise UserError(f"rows {row} to {row + height - 1} cannot be read")
        return super().read_window(row, col, height, width)


def test_errors_of_any_stage_arrive_and_no_thread_stays():
    before = threading.active_count()
    with pytest.raises(UserError, match="cannot be read"):
        predict_raster(conv_model(), Unreadable(sar(300, 100)), ArraySink())
    with pytest.raises(RuntimeError, match="out of power"):
        predict(sar(300, 100), model=conv_model(Counting(fail_at=5)))
    sink = ArraySink()
    sink.write = lambda *_: (_ for _ in ()).throw(UserError("disk full"))
    with pytest.raises(UserError, match="disk full"):
        predict_raster(conv_model(), ArraySource(sar(300, 100)), sink)
    assert threading.active_count() == before


class Endless(ArraySource):
    """A raster that takes no memory."""

    def __init__(self, height, width):
        super().__init__(np.broadcast_to(np.float32(SPEC.mean), (height, width, 2)))


@pytest.mark.parametrize("probabilities", [None, "float32"])
def test_memory_depends_on_neither_side(probabilities):
    peaks, model = [], conv_model()
    options = Options(memory=1, probabilities=probabilities)
    for size in ((200, 2400), (600, 2400), (200, 7200)):  # all of them wider than a block
        sink = ArraySink()
        sink.start = lambda *_: 0
        sink.write = lambda *_: None
        tracemalloc.start()
        predict_raster(model, Endless(*size), sink, options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 1.25 * min(peaks)
    assert max(peaks) < 4e6


def test_batches_hold_tiles_of_one_row():
    engine = Counting()
    predict(sar(64 + 2 * STEP, 64 + 4 * STEP), Options(batch=3), conv_model(engine))
    assert engine.batches == [3, 2] * 3
