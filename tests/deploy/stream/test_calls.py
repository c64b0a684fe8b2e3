"""Batches and asynchronous calls give what single calls give; they are bounded and may be canceled."""

import asyncio
import dataclasses
import threading
import time
from itertools import count

import numpy as np
import pytest

import deploy
from deploy.errors import UserError
from deploy.stream.calls import ASYNC_CALLS
from deploy.tasks.grasp.model import GraspModel
from deploy.tasks.regression.model import RegressionModel
from tests.deploy.stream.networks import LevelEngine, level, level_model, threads
from tests.deploy.tiny import CLASSES, SPECS, make_bundle, make_image

SIZES = [(32, 48), (64, 96), (20, 30), (33, 47), (32, 48), (100, 20)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for kind in ("rgb", "sar"):
        make_bundle(folder / f"{kind}-stretch", kind)
        make_bundle(folder / f"{kind}-tile", kind, resize="tile")
    return folder


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("resize", ["stretch", "tile"])
@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_a_batch_of_any_sizes_equals_single_calls(bundles, kind, resize, backend):
    pytest.importorskip(backend)
    model = deploy.load(bundles / f"{kind}-{resize}", backend, threads=1)
    images = [make_image(kind, seed, size) for seed, size in enumerate(SIZES)]
    if kind == "sar":
        images[1][:5] = np.nan
    for image, one in zip(images, model.batch(images, size=4), strict=True):
        single = model(image)
        np.testing.assert_array_equal(one.labels, single.labels)
        np.testing.assert_array_equal(one.valid, single.valid)
        np.testing.assert_allclose(one.probabilities, single.probabilities, atol=1e-5)


@pytest.mark.parametrize("decision", [{"threshold": 0.3}, {"temperature": 2.0}])
def test_thresholds_and_temperatures_hold_in_batches(bundles, decision):
    model = dataclasses.replace(deploy.load(bundles / "sar-stretch", "onnxruntime", threads=1), **decision)
    images = [make_image("sar", seed, size) for seed, size in enumerate(SIZES)]
    for image, one in zip(images, model.batch(images), strict=True):
        single = model(image)
        np.testing.assert_array_equal(one.labels, single.labels)
        np.testing.assert_allclose(one.probabilities, single.probabilities, atol=1e-5)


class MapEngine:
    """The channels themselves, and their mean, as maps of the network's size."""

    name, file = "maps fp32", None

    def run(self, batch):
        maps = (batch.astype(np.float32) / 255).transpose(0, 3, 1, 2)
        maps = np.concatenate([maps, maps.mean(axis=1, keepdims=True)], axis=1)
        return {"labels": (maps[:, 0] > 0.5).astype(np.uint8), "logits": maps[:, : self.channels]}


@pytest.mark.parametrize(("kind", "channels"), [(GraspModel, 4), (RegressionModel, 1)])
def test_batches_of_other_tasks(kind, channels):
    engine = MapEngine()
    engine.channels = channels
    model = kind(SPECS["rgb"], CLASSES["rgb"], engine)
    images = [make_image("rgb", seed, size) for seed, size in enumerate(SIZES)]
    fields = ("values", "labels") if channels == 1 else ("grasps", "qualities", "labels", "maps")
    for image, one in zip(images, model.batch(images), strict=True):
        single = model(image)
        for name in fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(single, name))
        assert model.draw(image, one).shape[2] == 3
    stacked = model(images[:1] * 3)
    for name in fields:
        assert len(getattr(stacked, name)) == 3
        np.testing.assert_array_equal(getattr(stacked, name)[2], getattr(model(images[0]), name))


def test_the_engine_runs_once_for_each_part_of_a_batch():
    model = level_model()
    results = model.batch([level(value) for value in range(7)], size=3)
    assert model.engine.batches == [3, 3, 1]
    assert [one.labels[0, 0] for one in results] == list(range(7))
    assert model.batch([]) == []


def test_an_image_of_a_batch_that_is_wrong_is_named():
    images = [level(0), level(1), level(2)[..., 0]]
    with pytest.raises(UserError, match=r"^image 2: image has 1 channel"):
        level_model().batch(images, size=2)
    for size in (0, "2", 1.5):
        with pytest.raises(UserError, match=f"size is {size!r}; give a whole number from 1 on"):
            level_model().batch(images, size=size)
    with pytest.raises(UserError, match=r"one shape, found 20×30×3, 32×48×3; use model\.batch\(images\)"):
        level_model()([level(0), level(0, (20, 30))])


def test_an_asynchronous_call_equals_a_call():
    image = make_image("rgb", size=(40, 50))
    model = level_model()
    result = asyncio.run(model.run_async(image))
    np.testing.assert_array_equal(result.labels, model(image).labels)
    with pytest.raises(UserError, match="image has 1 channel"):
        asyncio.run(model.run_async(image[..., 0]))


class CountingEngine(LevelEngine):
    """Counts how many calls run at once."""

    running = most = 0

    def run(self, batch):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return super().run(batch)
        finally:
            self.running -= 1


def test_asynchronous_calls_leave_the_loop_free_and_are_bounded():
    model = level_model()
    object.__setattr__(model, "engine", engine := CountingEngine(0.02))

    async def main():
        calls = asyncio.gather(*(model.run_async(level(value)) for value in range(8)))
        ticks = 0
        while not calls.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return [one.labels[0, 0] for one in await calls], ticks

    labels, ticks = asyncio.run(main())
    assert labels == list(range(8))
    assert ticks > 3
    assert 1 <= engine.most <= ASYNC_CALLS


def test_a_canceled_call_that_waits_never_runs():
    model = level_model(seconds=0.1)

    async def main():
        calls = [asyncio.ensure_future(model.run_async(level(value))) for value in range(6)]
        await asyncio.sleep(0.03)
        for call in calls:
            call.cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(main())
    assert all(isinstance(one, asyncio.CancelledError) for one in results)
    time.sleep(0.3)
    assert len(model.engine.batches) <= ASYNC_CALLS
    assert asyncio.run(level_model().run_async(level(5))).labels[0, 0] == 5  # the threads are still there


async def collected(stream):
    return [one async for one in stream]


def test_an_asynchronous_stream_equals_a_stream():
    images = [level(value) for value in range(30)]
    model = level_model()
    found = asyncio.run(collected(model.stream_async(images, draw=True)))
    for one, other in zip(found, model.stream(images, draw=True), strict=True):
        assert (one.index, one.where, one.dropped) == (other.index, other.where, other.dropped)
        np.testing.assert_array_equal(one.result.labels, other.result.labels)
        np.testing.assert_array_equal(one.picture, other.picture)
    assert threads() == []


def test_errors_and_warnings_of_an_asynchronous_stream():
    with pytest.raises(UserError, match=r"^frame 1: RuntimeError: the engine broke$"):
        asyncio.run(collected(level_model(fails_at=1).stream_async([level(0), level(1)])))
    assert threads() == []


async def consume(stream, until=None):
    async for one in stream:
        if one.index == until:
            break
    await stream.aclose()


def test_leaving_an_asynchronous_stream_stops_its_threads():
    asyncio.run(consume(level_model().stream_async(level(0) for _ in count()), until=2))
    assert threads() == []


def test_canceling_an_asynchronous_stream_stops_its_threads():
    unplugged = threading.Event()

    def camera():
        yield level(0)
        unplugged.wait(10)  # a read that takes its time

    async def main():
        task = asyncio.ensure_future(consume(level_model().stream_async(camera())))
        await asyncio.sleep(0.1)
        threading.Timer(0.2, unplugged.set).start()
        task.cancel()
        begin = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begin

    assert asyncio.run(main()) < 2
    assert threads() == []
