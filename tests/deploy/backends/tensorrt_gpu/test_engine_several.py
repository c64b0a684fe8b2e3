"""Several engines: a defect of one does not hide the others."""

import warnings

import pytest

from deploy.backends import auto as choice
from deploy.backends.open import open_engine
from deploy.backends.tensorrt_gpu import engine as trt
from deploy.bundle.engine_files import record_verdict
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.engines import add_engine, add_unloadable


@pytest.fixture(autouse=True)
def here(monkeypatch, library):
    monkeypatch.setattr("deploy.backends.tensorrt_gpu.cuda.why_not", lambda device: "")


def test_another_precision_that_fits(bundle, library):
    fits = add_engine(bundle, "fp16", precision="fp16")
    add_engine(bundle, "there", compute_capability="8.9")
    with pytest.warns(RuntimeWarning, match=r"was built for Fake GPU .*; running without it"):
        assert open_engine(bundle).file == fits
    with pytest.raises(UserError, match="was built for Fake GPU"):
        open_engine(bundle, "tensorrt", precision="int8")


def test_one_damaged_sidecar(bundle, library):
    good = add_engine(bundle, "good")
    for backend in ("tensorrt-rtx", "tensorrt"):
        add_engine(bundle, backend, backend=backend).with_suffix(".json").write_text("{")
    assert open_engine(bundle).file == good
    assert open_engine(bundle, "tensorrt").file == good


def test_an_older_one_that_loads(bundle, library):
    good = add_engine(bundle, "good")
    add_unloadable(bundle, "bad")
    assert open_engine(bundle).file == good
    good.unlink()
    with pytest.raises(UserError, match=r"bad\.engine: tensorrt .* cannot load it"):
        open_engine(bundle, "tensorrt")


def test_the_very_one_that_is_asked_for(bundle, library):
    old, new = add_engine(bundle, "old"), add_engine(bundle, "new")
    assert trt.open_trt(bundle, "tensorrt").file == new
    assert trt.open_trt(bundle, "tensorrt", engine=old).file == old
    bad = add_unloadable(bundle, "bad")
    with pytest.raises(UserError, match=r"bad\.engine: tensorrt .* cannot load it"):
        trt.open_trt(bundle, "tensorrt", engine=bad)
    with pytest.raises(UserError, match=r"old\.engine: has no engine for tensorrt fp16"):
        trt.open_trt(bundle, "tensorrt", "fp16", engine=old)


def test_single_images_get_the_engine_for_them(bundle, library):
    """Not the newest one, which would compute eight images for each."""
    one = add_engine(bundle, "one", batch=(1, 1, 1))
    add_engine(bundle, "eight", batch=(8, 8, 8))
    assert trt.open_trt(bundle, "tensorrt").file == one
    assert open_engine(bundle).file == one
    newer = add_engine(bundle, "range", batch=(1, 2, 4))
    assert trt.open_trt(bundle, "tensorrt").file == newer
    record_verdict(newer, False)
    with pytest.warns(
        RuntimeWarning, match=r"range\.engine: failed its accuracy gate .* running one\.engine"
    ):
        assert open_engine(bundle).file == one
    lower = add_engine(bundle, "lower", batch=(8, 8, 8), precision="fp16")
    assert trt.open_trt(bundle, "tensorrt", "fp16").file == lower


def test_one_that_failed_its_gate(bundle, library, monkeypatch):
    fp16, failed = add_engine(bundle, "fp16", precision="fp16"), add_engine(bundle, "int8")
    record_verdict(failed, False)
    with pytest.warns(RuntimeWarning, match=r"int8\.engine: failed its accuracy gate when it was built"):
        assert open_engine(bundle).file == fp16
    with pytest.raises(UserError, match=r"int8\.engine: failed its accuracy gate when it was built; "):
        open_engine(bundle, "tensorrt", precision="int8")
    assert trt.open_trt(bundle, "tensorrt", engine=failed).file == failed  # so that it can be verified again
    fp16.unlink()
    monkeypatch.setattr(choice, "installed", lambda: ["onnxruntime"])
    with pytest.warns(RuntimeWarning, match="failed its accuracy gate"):
        assert open_engine(bundle).name == "onnxruntime fp32"
    record_verdict(failed, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_engine(bundle).file == failed


def test_a_runtime_that_cannot_start(bundle, library, monkeypatch):
    def fail(log):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    add_engine(bundle)
    library.module.Runtime = fail
    with pytest.raises(UserError, match=r"tensorrt 11.* cannot start .*nullptr.*driver"):
        open_engine(bundle, "tensorrt")
    monkeypatch.setattr(choice, "installed", lambda: ["onnxruntime"])
    with pytest.warns(RuntimeWarning, match="cannot start"):
        assert open_engine(bundle).name == "onnxruntime fp32"
