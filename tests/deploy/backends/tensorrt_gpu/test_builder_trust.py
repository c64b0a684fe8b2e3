"""What was built here is trusted: exactly what the compiler returned, and nothing that lies at its place."""

import hashlib
import sys

import pytest

from deploy.backends.tensorrt_gpu import builder as trt_builder
from deploy.backends.tensorrt_gpu.builder import BuildOptions, build_engine
from deploy.bundle.engine_files import write_engine
from deploy.signing.trust_store import distrust, why_untrusted
from tests.deploy.backends.tensorrt_gpu.builder_fakes import ORIN, Fake
from tests.deploy.backends.tensorrt_gpu.gpu_fakes import MemoryCuda
from tests.deploy.backends.tensorrt_gpu.test_builder_models import bundle_of, small_network


@pytest.fixture
def bundle(tmp_path):
    return bundle_of(tmp_path / "bundle", model_int8=small_network("s8"))


@pytest.fixture
def build(bundle, monkeypatch):
    """Build with a stand-in for TensorRT on a machine with a GPU."""
    monkeypatch.setattr(trt_builder.cuda, "find", lambda index: MemoryCuda(ORIN))

    def run(fake, say=lambda text: None):
        monkeypatch.setitem(sys.modules, "tensorrt", fake)
        return build_engine(bundle, BuildOptions("tensorrt"), progress=False, say=say)

    return run


def test_only_what_this_user_has_built_is_used_again(build):
    """An engine that came with the bundle, with the right key in its sidecar, is none of them."""
    built = build(Fake("11.4"))
    digest = hashlib.sha256(b"an engine").hexdigest()
    assert (built.sidecar.sha256, why_untrusted(digest)) == (digest, "")
    assert build(Fake("11.4")).reused
    distrust(digest)
    assert not build(Fake("11.4")).reused
    assert build(Fake("11.4")).reused


def test_what_is_trusted_is_what_was_compiled(build, monkeypatch):
    def swap(bundle, name, plan, sidecar):
        path = write_engine(bundle, name, plan, sidecar)
        write_engine(bundle, name, b"another", sidecar)
        return path

    monkeypatch.setattr(trt_builder, "write_engine", swap)
    build(Fake("11.4", build=lambda: b"compiled"))
    assert why_untrusted(hashlib.sha256(b"compiled").hexdigest()) == ""
    assert why_untrusted(hashlib.sha256(b"another").hexdigest())


def test_where_no_receipt_can_be_written_the_engine_is_built_all_the_same(build, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEDISTILL_STATE", str(tmp_path / "file" / "state"))
    said = []
    built = build(Fake("11.4", build=lambda: b"never seen before"), said.append)
    assert built.path.exists()
    assert any("trusted-engines: cannot be made" in line and "trust_engines=True" in line for line in said)
    assert why_untrusted(built.sidecar.sha256) == ""  # this process may go on to verify it
