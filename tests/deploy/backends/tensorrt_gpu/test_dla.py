"""Engines for a DLA: what it takes, what runs on the GPU instead, and its memory; on a fake Jetson."""

import pytest

from deploy.backends.tensorrt_gpu import builder, cuda
from deploy.backends.tensorrt_gpu.options import BuildOptions, pools
from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.engine_files import read_sidecar
from deploy.bundle.manifest import FP16, MODEL
from deploy.errors import UserError
from tests.deploy.backends.tensorrt_gpu.builder_fakes import ORIN, Fake
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import MemoryCuda
from tests.deploy.tiny import make_bundle

LOG = """\
---------- Layers Running on DLA ----------
[DlaLayer] {ForeignNode[/net/conv0/Conv.../net/conv8/Relu]}
[DlaLayer] {ForeignNode[/net/conv9/Conv]}
---------- Layers Running on GPU ----------
[GpuLayer] SHUFFLE: a
[GpuLayer] CAST: b
[GpuLayer] TOPK: c"""
"""As the builders of TensorRT 8.4 and later log it, message by message."""


@pytest.fixture
def build(tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    manifest = make_bundle(folder)
    model = (folder / MODEL).read_bytes()
    write_bundle(folder, manifest, {MODEL: model, FP16: model})
    assert FP16 in read_manifest(folder).files
    monkeypatch.setattr(cuda, "find", lambda device: MemoryCuda(ORIN))
    said = []

    def run(fake, **options):
        monkeypatch.setattr(builder, "import_tensorrt", lambda backend: fake)
        chosen = BuildOptions("tensorrt", precision="fp16", **({"dla_core": 0} | options))
        return builder.build_engine(folder, chosen, progress=False, say=said.append), said

    return run


def jetson(version, *not_on_dla, log=LOG, severity=3):
    fake = Fake(version, cores=2)
    fake.not_on_dla = list(not_on_dla)

    def compiles():
        for line in log.splitlines():
            fake.say(severity, line)
        return fake._layers()

    fake.build = compiles
    return fake


@pytest.mark.parametrize(("version", "severity"), [("10.3.0", 3), ("11.4", 4)])
def test_what_runs_where_is_said(build, version, severity):
    built, said = build(jetson(version, "CAST", "TOPK", "CONSTANT", "SHUFFLE", severity=severity))
    expected = (
        "DLA: takes 1 of 4 layers, in 2 parts there and 3 on the GPU; on the GPU: cast node_cast, topk node_topk,"
        " shuffle unnamed SHUFFLE"
    )
    assert said[-1] == expected
    found = read_sidecar(built.path).layers.dla
    assert (found.layers, len(found.on_gpu), found.parts, found.gpu_parts) == (1, 3, 2, 3)
    assert "[DlaLayer] {ForeignNode[/net/conv9/Conv]}" in built.log.read_text()


def test_a_builder_that_lists_no_parts(build):
    _, said = build(jetson("11.4", log=""))
    assert said[-1] == "DLA: takes 1 of 1 layers"


def test_without_a_dla_nothing_is_said(build):
    built, said = build(jetson("11.4", "CAST"), dla_core=None)
    assert not any("DLA" in line for line in said)
    assert read_sidecar(built.path).layers.dla is None


def test_a_dla_alone_that_does_not_take_every_layer(build):
    """It is refused before the build, which may take minutes."""
    fake = jetson("11.4", "CAST", "CONSTANT")
    expected = r"model\.fp16\.onnx: the DLA does not take 1 of 2 layers \(cast node_cast\); allow them"
    with pytest.raises(UserError, match=expected):
        build(fake, allow_gpu_fallback=False)
    fake.last.builder.build_serialized_network.assert_not_called()
    built, _ = build(jetson("11.4"), allow_gpu_fallback=False)
    assert built.path.is_file()


def test_memory_pools(build):
    fake = jetson("10.3.0")
    first, _ = build(fake, dla_pools="sram=0.5,global=256")
    pool = fake.MemoryPoolType
    assert [call.args for call in fake.last.config.set_memory_pool_limit.call_args_list] == [
        (pool.DLA_MANAGED_SRAM, 1 << 19),
        (pool.DLA_GLOBAL_DRAM, 256 << 20),
    ]
    second, _ = build(jetson("10.3.0"))
    assert first.path != second.path
    assert "dla_pools" not in read_sidecar(second.path).options  # as before there were any


@pytest.mark.parametrize(
    "text", ["sram", "sram=", "dram=1", "local=3", "local=-2", "sram=0.001", "global=inf"]
)
def test_impossible_pools(text):
    with pytest.raises(UserError, match=r"dla_pools .*: give MiB, powers of two, as in sram=1,local=1024"):
        pools(text)
    assert pools("") == {}
