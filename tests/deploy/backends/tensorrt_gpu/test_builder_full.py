"""The builder with full TensorRT 10 and 11: what it requests of each, and what it refuses.

They need a GPU. The stand-ins have the documented attributes of 10.3 and 11.4, and refuse calls that do not fit them.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.backends.tensorrt_gpu import builder as trt_builder
from deploy.backends.tensorrt_gpu import log
from deploy.backends.tensorrt_gpu.builder import BuildOptions, build_engine
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.builder_fakes import ORIN, Fake, spec
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import MemoryCuda
from tests.deploy.backends.tensorrt_gpu.test_builder_models import bundle_of, small_network
from tests.deploy.backends.tensorrt_gpu.test_inspector import TENSORRT_10
from tests.deploy.backends.tensorrt_gpu.test_layer_report import FULL_10


@pytest.fixture
def bundle(tmp_path) -> Path:
    return bundle_of(tmp_path / "bundle", model_int8=small_network("s8"), model_fp16=small_network("fp16"))


@pytest.fixture
def build(bundle, monkeypatch):
    """Build with a stand-in for TensorRT on a machine with a GPU."""
    monkeypatch.setattr(trt_builder.cuda, "find", lambda index: MemoryCuda(ORIN))

    def run(fake, **options):
        monkeypatch.setitem(sys.modules, "tensorrt", fake)
        return build_engine(
            bundle, BuildOptions("tensorrt", **options), progress=False, say=lambda text: None
        )

    return run


@pytest.mark.parametrize(
    ("version", "flags"), [("10.3.0", 2), ("10.13.3.9", 2), ("11.0.0", 0), ("11.4.1.7", 0), ("12.0", 0)]
)
def test_strong_typing_is_asked_of_tensorrt_10_alone(build, version, flags):
    fake = Fake(version)
    built = build(fake)
    fake.last.builder.create_network.assert_called_once_with(flags)
    assert fake.last.config.profiling_verbosity == fake.ProfilingVerbosity.DETAILED
    # Only the network decides the precision: TensorRT 11 has no flags for it, and 10 refuses them when strongly typed.
    fake.last.config.set_flag.assert_not_called()
    side = built.sidecar
    assert (side.version, side.gpu, side.compute_capability, side.targets) == (version, "Orin", "8.7", ())
    assert side.layers is not None
    assert (side.layers.convolutions, side.layers.int8_convolutions) == (1, 1)
    assert built.path.read_bytes() == b"an engine"


def test_batch_is_fixed_or_a_profile(build):
    fixed, ranged = Fake("11.4"), Fake("11.4")
    build(fixed, batch=(2, 2, 2))
    assert fixed.last.image.shape == (2, 32, 48, 3)
    fixed.last.builder.create_optimization_profile.assert_not_called()
    build(ranged, batch=(1, 4, 8))
    assert ranged.last.image.shape == (-1, 32, 48, 3)
    ranged.last.profile.set_shape.assert_called_once_with(
        "image", (1, 32, 48, 3), (4, 32, 48, 3), (8, 32, 48, 3)
    )
    ranged.last.config.add_optimization_profile.assert_called_once_with(ranged.last.profile)


def test_options_reach_the_builder(build):
    fake = Fake("10.7", cores=2)
    build(
        fake,
        precision="fp16",
        workspace_mb=64,
        hardware_compatible="ampere+",
        version_compatible=True,
        dla_core=1,
        optimization_level=5,
    )
    config = fake.last.config
    config.set_memory_pool_limit.assert_called_once_with(fake.MemoryPoolType.WORKSPACE, 64 << 20)
    assert config.hardware_compatibility_level == fake.HardwareCompatibilityLevel.AMPERE_PLUS
    flags = [(fake.BuilderFlag.VERSION_COMPATIBLE,), (fake.BuilderFlag.GPU_FALLBACK,)]
    assert [call.args for call in config.set_flag.call_args_list] == flags
    assert (config.default_device_type, config.DLA_core) == (fake.DeviceType.DLA, 1)
    assert config.builder_optimization_level == 5
    new = Fake("11.4", cores=2)
    build(new, precision="fp16", hardware_compatible="same-cc", dla_core=0, allow_gpu_fallback=False)
    level = new.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    assert new.last.config.hardware_compatibility_level == level
    new.last.config.set_flag.assert_not_called()


@pytest.mark.parametrize("version", ["10.3.0", "11.4"])
def test_tf32_can_be_left_out(build, version):
    as_usual, full = Fake(version), Fake(version)
    build(as_usual, precision="fp32")
    as_usual.last.config.clear_flag.assert_not_called()
    build(full, precision="fp32", tf32=False)
    full.last.config.clear_flag.assert_called_once_with(full.BuilderFlag.TF32)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(0, "this machine has no DLA"), (2, "this machine has cores 0 to 1; leave it out")],
)
def test_dla_that_is_not_there(build, cores, expected):
    with pytest.raises(UserError, match=expected):
        build(Fake("10.7", cores=cores), precision="fp16", dla_core=2)


def test_compatibility_that_is_not_offered(build):
    fake = Fake("10.3.0")
    with pytest.raises(
        UserError, match=r"TensorRT 10\.3\.0: does not offer .*SAME_COMPUTE_CAPABILITY; upgrade"
    ):
        build(fake, hardware_compatible="same-cc")


def test_timing_cache_is_read_and_updated(build, tmp_path):
    path = tmp_path / "new" / "timing.cache"
    build(Fake("11.4"), timing_cache=path)
    assert path.read_bytes() == b"afresh"
    fake = Fake("11.4")
    assert build(fake, timing_cache=path).reused  # earlier timings do not make it another engine
    build(fake, timing_cache=path, optimization_level=1)
    fake.last.config.create_timing_cache.assert_called_once_with(b"afresh")
    assert path.read_bytes() == b"measured"
    build(Fake("11.4", cache_fits=False), timing_cache=path, optimization_level=2)
    assert path.read_bytes() == b"afresh"
    with pytest.raises(UserError, match="cannot be read as a timing cache"):
        build(Fake("11.4"), timing_cache=tmp_path, optimization_level=4)


def test_it_is_compiled_on_the_gpu_that_was_asked_for(bundle, monkeypatch):
    gpus = [MemoryCuda(replace(ORIN, name=name)) for name in ("first", "second")]
    monkeypatch.setattr(trt_builder.cuda, "find", gpus.__getitem__)
    fake = Fake("11.4", build=lambda: gpus[1].memory() and b"an engine")  # fails outside of its context
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    built = build_engine(bundle, BuildOptions("tensorrt", device=1), progress=False, say=lambda text: None)
    assert built.sidecar.gpu == "second"


def test_another_gpu_or_version_makes_another_engine(build, monkeypatch):
    paths = {build(Fake("11.4")).path, build(Fake("11.4.1")).path}
    assert build(Fake("11.4")).reused
    for change in ({"name": "Thor"}, {"compute_capability": "8.9"}):
        other = MemoryCuda(replace(ORIN, **change))
        monkeypatch.setattr(trt_builder.cuda, "find", lambda index, other=other: other)
        paths.add(build(Fake("11.4")).path)
    assert len(paths) == 4


def test_a_log_of_unknown_form_is_no_failure(build):
    """Which convolutions run in INT8 is then not known, and a warning says so."""
    fake = Fake("11.4", build=lambda: fake.say(4, "Layers:\nName= conv; Kind= Conv") or b"an engine")
    with pytest.warns(
        RuntimeWarning, match=r"TensorRT 11\.4: its log lists layers in a form .* not known which run"
    ):
        built = build(fake)
    assert built.sidecar.layers is None
    half = FULL_10.replace("LayerType: CaskConvolution", "Kind: CaskConvolution")
    fake = Fake("11.4.1", build=lambda: fake.say(4, half) or b"an engine")
    with pytest.warns(RuntimeWarning, match="in a form that is not known"):
        assert build(fake).sidecar.layers is not None


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (
            "Layers:\nName= conv; Kind= Conv",
            "in a form that is not known here; its inspector is believed instead",
        ),
        (
            FULL_10.replace("Int8", "Float"),
            "0 of 1 convolutions in INT8, its inspector 1 of 1; the inspector is",
        ),
        (FULL_10, None),
    ],
)
def test_the_inspector_is_a_second_witness(build, recwarn, said, warning):
    fake = Fake("10.3.0", build=lambda: fake.say(4, said) or b"an engine")
    content = json.dumps(TENSORRT_10)
    inspector = spec(fake.real.EngineInspector, get_engine_information=lambda format: content)
    engine = spec(fake.real.ICudaEngine, create_engine_inspector=lambda: inspector)
    fake.Runtime = lambda log: spec(fake.real.Runtime, deserialize_cuda_engine=lambda plan: engine)
    layers = build(fake).sidecar.layers
    assert layers is not None
    assert (layers.convolutions, layers.int8_convolutions) == (1, 1)
    assert [warning in str(one.message) for one in recwarn] == ([True] if warning else [])


def test_warnings_of_the_builder_are_shown(bundle, monkeypatch):
    monkeypatch.setattr(log, "_told", set())
    monkeypatch.setattr(trt_builder.cuda, "find", lambda index: MemoryCuda(ORIN))
    fake = Fake("11.4", build=lambda: [fake.say(2, "unused input: x") for _ in range(3)] and b"an engine")
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    said = []
    build_engine(bundle, BuildOptions("tensorrt"), progress=False, say=said.append)
    assert said.count("TensorRT: unused input: x") == 1


def test_without_layers_message_there_is_no_summary(build):
    built = build(Fake("11.4", build=lambda: b"an engine"))
    assert built.sidecar.layers is None
    assert built.path.exists()


@pytest.mark.parametrize(
    ("said", "options", "expected"),
    [
        (
            "Could not find any implementation for node conv due to insufficient workspace.",
            {"workspace_mb": 1},
            "workspace_mb 1: too little for TensorRT 11.4",
        ),
        (
            "Error Code 2: OutOfMemory (Requested size was 13764684 bytes.)",
            {},
            r"ran out of memory \(it asks for 13 MiB\); close other programs",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 9: Internal Error (node conv cannot run on DLA"
            " In validate at /_src/optimizer/dla.cpp:12)",
            {},
            r"cannot build it \(node conv cannot run on DLA\); the complete log is in .*\.log",
        ),
        (None, {}, "it does not say why"),
    ],
)
def test_failures_are_one_line(build, said, options, expected):
    def fail():
        if said:
            fake.say(1, said)
            fake.say(1, "catchCudaError: Error Code 1: Cuda Runtime (no driver (cudaError 35: insufficient))")
        fake.say(2, "a warning means nothing")

    fake = Fake("11.4", build=fail)
    with pytest.raises(UserError, match=expected) as error:
        build(fake, **options)
    assert "\n" not in str(error.value)


def test_builder_that_does_not_start(build):
    fake = Fake("11.4")

    def start(log):
        fake.say(1, "CUDA initialization failure with error: 999")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    fake.Builder = start
    with pytest.raises(UserError, match="CUDA initialization failure with error: 999"):
        build(fake)


def test_full_tensorrt_needs_a_gpu_and_is_not_touched_without(bundle, monkeypatch):
    monkeypatch.setattr(trt_builder.cuda, "find", lambda index: None)
    monkeypatch.setattr(trt_builder.cuda, "why_not", lambda index: "no driver; install it")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        UserError, match=r"no usable NVIDIA GPU \(no driver; install it\); .*--backend tensorrt-rtx"
    ):
        build_engine(bundle, BuildOptions("tensorrt"))
