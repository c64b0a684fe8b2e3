"""`edgedistill.raster`: the labels of predict_raster, lazily and at once, in place, for every way to hold a raster."""

import sys
import threading

import msgspec
import numpy as np
import pytest

import edgedistill
from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.loading import load
from deploy.pinned import open_pinned
from deploy.raster import NODATA, ArraySink, ArraySource, Options, array_chunks, predict_raster
from deploy.raster.dataarray import predict_dataarray
from tests.deploy.raster.networks import sar, write_tif
from tests.deploy.tiny import make_bundle, make_image

xarray = pytest.importorskip("xarray", reason="xarray is not installed (pip install -e '.[dask]')")
rioxarray = pytest.importorskip("rioxarray", reason="rioxarray is not installed (pip install -e '.[dask]')")
array = pytest.importorskip("dask.array", reason="dask is not installed (pip install -e '.[dask]')")

IMAGE = sar(150, 230)
IMAGE[40:90, 100:130] = np.nan


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "rgb", resize="tile")
    make_bundle(folder / "sar", "sar", resize="tile")
    return folder


def predict(stack, bundle, **more):
    return edgedistill.raster(stack, bundle, backend="onnxruntime", **more)


def expected(bundle, image, options=None, nodata=None):
    sink = ArraySink()
    predict_raster(load(bundle, "onnxruntime", 1), ArraySource(image, nodata), sink, options)
    return sink


def stack_of(image, chunks=None, **more):
    """Bands first, as rioxarray and odc-stac have them."""
    bands = np.moveaxis(image, -1, 0)
    bands = bands if chunks is None else array.from_array(bands, chunks)
    return xarray.DataArray(bands, dims=("band", "y", "x"), **more)


def test_arrays_in_memory(bundles):
    found = predict(stack_of(IMAGE), bundles / "sar")
    np.testing.assert_array_equal(found.values, expected(bundles / "sar", IMAGE).labels)
    assert (found.dims, found.dtype, found.name) == (("y", "x"), np.uint8, "labels")
    assert (found[50, 110], found.rio.nodata) == (NODATA, NODATA)
    assert found.attrs["flag_meanings"] == "water land"
    assert found.attrs["flag_values"].tolist() == [0, 1]


@pytest.mark.parametrize("chunk", [1, 60, 97, 130, None, 5000])
@pytest.mark.parametrize("options", [Options(), Options(overlap=3), Options(overlap=0, min_valid=0.3)])
def test_lazy_chunks_have_no_seams(bundles, chunk, options):
    found = predict(stack_of(IMAGE, (1, 70, 111)), bundles / "sar", chunk=chunk, options=options)
    assert isinstance(found.data, array.Array)
    if chunk == 60:
        assert len(found.chunks[0]) > 1
        assert len(found.chunks[1]) > 1
    np.testing.assert_array_equal(found.values, expected(bundles / "sar", IMAGE, options).labels)


def test_nothing_is_read_or_loaded_before_it_is_needed(bundles, monkeypatch):
    """And then only the chunks around a window."""
    read, opened = set(), []

    def block(block_info):
        (top, _), (left, _) = block_info[None]["array-location"][1:]
        read.add((top, left))
        return np.ones((2, 32, 48), np.float32)

    empty = np.empty((0, 0, 0), np.float32)
    lazy = array.map_blocks(block, chunks=((2,), (32,) * 20, (48,) * 20), dtype=np.float32, meta=empty)
    monkeypatch.setattr(array_chunks, "open_pinned", lambda pin: opened.append(pin) or open_pinned(pin))
    found = predict(xarray.DataArray(lazy, dims=("band", "y", "x")), bundles / "sar", chunk=96)
    assert (read, opened) == (set(), [])
    found[:10, :10].compute(scheduler="synchronous")
    assert read
    assert max(top for top, _ in read) < 200
    assert max(left for _, left in read) < 250
    assert len(opened) == 1


def test_probabilities(bundles):
    for dtype in ("float32", "uint8"):
        options = Options(probabilities=dtype)
        wanted = expected(bundles / "sar", IMAGE, options).probabilities
        for stack in (stack_of(IMAGE), stack_of(IMAGE, (2, 64, 64))):
            found = predict(stack, bundles / "sar", options=options, chunk=70)
            np.testing.assert_array_equal(found.values, wanted)
            assert found.dims == ("class", "y", "x")
            assert found["class"].values.tolist() == ["water", "land"]
    assert found.attrs["scale_factor"] == 1 / 254
    assert found.rio.nodata == 255


def test_each_time_by_itself(bundles):
    times = np.array(["2024-01-01", "2024-02-01", "2024-03-01"], "datetime64[ns]")
    images = [sar(60, 100, seed) for seed in range(3)]
    cube = np.stack([np.moveaxis(one, -1, 0) for one in images])
    wanted = np.stack([expected(bundles / "sar", one).labels for one in images])
    coords = {
        "time": times,
        "orbit": ("time", [1, 2, 3]),
        "band": ["VV", "VH"],
        "wavelength": ("band", [1, 2]),
    }
    eager = xarray.DataArray(cube, coords, ("time", "band", "y", "x"))
    for data in (eager, eager.chunk({"time": 1, "y": 33}), eager.transpose("y", "band", "x", "time")):
        found = predict(data, bundles / "sar")
        np.testing.assert_array_equal(found.transpose("time", "y", "x").values, wanted)
        np.testing.assert_array_equal(found["time"].values, times)
        assert found["orbit"].values.tolist() == [1, 2, 3]
        assert "wavelength" not in found.coords
    options = Options(probabilities="uint8")
    found = predict(eager.chunk({"y": 33}), bundles / "sar", options=options)
    assert found.dims == ("class", "time", "y", "x")
    np.testing.assert_array_equal(found[:, 1], expected(bundles / "sar", images[1], options).probabilities)


# rioxarray multiplies transforms by *
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_a_geotiff_through_rioxarray_keeps_its_place(bundles, tmp_path):
    values = np.rint(sar(150, 230)).astype(np.int16)
    values[10:60, :20] = -9999
    write_tif(tmp_path / "in.tif", values, nodata=-9999)
    wanted = expected(bundles / "sar", values, nodata=-9999).labels
    assert (wanted[10:60, :20] == NODATA).all()
    for options in (
        {},
        {"masked": True},
        {"chunks": {"x": 64, "y": 64}},
        {"masked": True, "chunks": {"x": 100}},
    ):
        with rioxarray.open_rasterio(tmp_path / "in.tif", **options) as data:
            found = predict(data, bundles / "sar")
            np.testing.assert_array_equal(found.values, wanted)
            assert found.rio.crs.to_epsg() == 32632
            assert found.rio.transform() == data.rio.transform()
            np.testing.assert_array_equal(found["x"], data["x"])
            found.rio.to_raster(tmp_path / "out.tif")
        with rioxarray.open_rasterio(tmp_path / "out.tif") as again:
            np.testing.assert_array_equal(again.values[0], wanted)
            assert (again.rio.crs, again.rio.nodata) == (found.rio.crs, NODATA)


def test_crs_in_an_attribute_and_degrees(bundles):
    data = xarray.DataArray(
        np.moveaxis(IMAGE, -1, 0),
        {"latitude": np.linspace(10, 9, 150), "longitude": np.linspace(3, 4, 230)},
        ("band", "latitude", "longitude"),
        attrs={"crs": "EPSG:4326"},
    )
    found = predict(data, bundles / "sar")
    assert found.dims == ("latitude", "longitude")
    assert found.rio.crs.to_epsg() == 4326


def test_uint8_pixels_have_no_data_where_all_bands_say_so(bundles):
    image = make_image("rgb", 0, (70, 90)).clip(1)
    image[:9] = 0
    image[9:, :, 0] = 0
    data = stack_of(image).rio.write_nodata(0)
    found = predict(data, bundles / "rgb")
    assert (found[:9] == NODATA).all()
    assert (found[9:] != NODATA).all()
    np.testing.assert_array_equal(found, expected(bundles / "rgb", image, nodata=0).labels)


def test_bands_are_found_by_their_names(bundles):
    wanted = expected(bundles / "sar", IMAGE).labels
    three = np.concatenate([IMAGE[..., 1:], IMAGE[..., :1] * 0, IMAGE[..., :1]], axis=2)
    named = stack_of(three, coords={"band": ["VH", "angle", "VV"]})
    np.testing.assert_array_equal(predict(named, bundles / "sar"), wanted)
    np.testing.assert_array_equal(predict(named, bundles / "sar", bands=["VV", "VH"]), wanted)
    numbered = stack_of(three, coords={"band": [1, 2, 3]})
    np.testing.assert_array_equal(predict(numbered, bundles / "sar", bands=[3, 1]), wanted)
    np.testing.assert_array_equal(predict(stack_of(three), bundles / "sar", bands=[3, 1]), wanted)
    described = stack_of(IMAGE[..., ::-1], coords={"band": [1, 2]}, attrs={"long_name": ("VH", "VV")})
    np.testing.assert_array_equal(predict(described, bundles / "sar"), wanted)
    renamed = named.rename(band="polarization")
    np.testing.assert_array_equal(predict(renamed, bundles / "sar", band_dim="polarization"), wanted)


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (
            lambda data: data.rename(y="a", x="b"),
            {},
            "dimensions band, a, b, but none is known to be rows or columns",
        ),
        (
            lambda data: data.to_dataset("band"),
            {},
            r"takes a DataArray, not a Dataset; .*to_dataarray\(\"band\"\)",
        ),
        (lambda data: data.values, {}, "takes a DataArray, not a ndarray"),
        (
            lambda data: data.assign_coords(band=["hh", "hv"]),
            {},
            "are named hh, hv, the bundle wants VV, VH; give them",
        ),
        (lambda data: data, {"bands": [1, 7]}, "band 7 is not among the bands 1, 2"),
        (
            lambda data: data.assign_coords(band=["VV", "VV"]),
            {"bands": ["VV", "VV"]},
            "VV is several times among",
        ),
        (lambda data: data[[0, 1, 0]], {}, r"have 3 band\(s\), the bundle wants 2 \(VV, VH\); choose them"),
        (lambda data: data.rename(band="b"), {}, r"name that of the bands by band_dim= \(now 'band'\)"),
        (
            lambda data: data.assign_attrs(scale_factor=0.1),
            {},
            r"attribute scale_factor \(0\.1\).*mask_and_scale=True",
        ),
        (lambda data: data.assign_attrs(offsets=(1, 2)), {}, "attribute offsets"),
        (lambda data: data.astype(complex), {}, "complex128"),
        (lambda data: data[:, :0], {}, "the data are empty"),
        (lambda data: data, {"options": Options(overlap=32)}, "overlap is 32 pixels, tiles are 32×48"),
    ],
)
def test_what_does_not_fit(bundles, change, more, message):
    with pytest.raises(UserError, match=message) as caught:
        predict(change(stack_of(IMAGE)), bundles / "sar", **more)
    assert "\n" not in str(caught.value)


def test_scaling_that_says_nothing_is_fine(bundles):
    data = stack_of(IMAGE, attrs={"scale_factor": 1.0, "add_offset": 0.0})
    np.testing.assert_array_equal(predict(data, bundles / "sar"), expected(bundles / "sar", IMAGE).labels)


def test_another_type_than_the_bundle_reads(bundles):
    data = stack_of(make_image("rgb", 0, (70, 70)).astype(np.uint16))
    with pytest.raises(UserError, match="the raster is uint16, the bundle wants uint8"):
        predict(data, bundles / "rgb")


def test_a_bundle_that_changed_before_computing_is_refused(tmp_path):
    make_bundle(tmp_path / "bundle", "sar")
    lazy = predict(stack_of(IMAGE, (2, 60, 60)), tmp_path / "bundle")
    make_bundle(tmp_path / "bundle", "sar", resize="tile")
    with pytest.raises(UserError, match="is another bundle here"):
        lazy.compute(scheduler="synchronous")


def test_all_chunks_share_one_network(bundles, monkeypatch):
    threads, models, model = set(), set(), array_chunks._model

    def watched(task):
        threads.add(threading.get_ident())
        found = model(task)
        models.add(id(found))
        return found

    monkeypatch.setattr(array_chunks, "_model", watched)
    predict(stack_of(sar(400, 400), (2, 100, 100)), bundles / "sar", chunk=50).compute(
        scheduler="threads", num_workers=4
    )
    assert len(threads) > 1
    assert len(models) == 1


def test_on_a_cluster(bundles):
    distributed = pytest.importorskip(
        "distributed", reason="dask is not installed (pip install -e '.[dask]')"
    )
    options = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster,
        distributed.Client(cluster),
    ):
        found = predict(stack_of(IMAGE, (2, 60, 60)), bundles / "sar", chunk=60).compute()
    np.testing.assert_array_equal(found.values, expected(bundles / "sar", IMAGE).labels)


def test_without_rioxarray_it_says_what_to_install(bundles, monkeypatch):
    monkeypatch.setitem(sys.modules, "rioxarray", None)
    with pytest.raises(UserError, match=r"needs xarray and rioxarray .*: pip install 'edgedistill\[dask\]'"):
        predict_dataarray(stack_of(IMAGE), bundles / "sar")


def test_grasp_bundles_are_refused(bundles, tmp_path):
    grasp = msgspec.structs.replace(read_manifest(bundles / "sar"), task="grasp")
    write_bundle(tmp_path / "grasp", grasp, {MODEL: bundles / "sar" / MODEL}, {MODEL: "fp32"})
    with pytest.raises(UserError, match=r"edgedistill\.raster is for segmentation bundles"):
        predict(stack_of(IMAGE), tmp_path / "grasp")
