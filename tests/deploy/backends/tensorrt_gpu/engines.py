"""Engines that the fake TensorRT can open, or refuses."""

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import write_engine
from deploy.bundle.manifest import FP16, INT8, MODEL
from deploy.files.atomic import sha256_file
from deploy.signing.trust_store import distrust, trust
from tests.deploy.backends.tensorrt_gpu.trt_fakes import ENGINE, make_sidecar

SOURCES = {"fp32": MODEL, "fp16": FP16, "int8": INT8}


def add_engine(bundle, name="int8", **changes):
    """An engine that fits this GPU and library, except for the changes."""
    source = SOURCES[changes.get("precision", "int8")]
    fits = {"source": source, "source_sha256": read_manifest(bundle).files[source].sha256}
    path = write_engine(bundle, name, ENGINE, make_sidecar(**fits | changes))
    trust(sha256_file(path), path, "built")
    return path


def add_unloadable(bundle, name):
    """An engine whose sidecar fits, but which TensorRT cannot load."""
    checksum = read_manifest(bundle).files[INT8].sha256
    path = write_engine(bundle, name, b"rubbish", make_sidecar(source=INT8, source_sha256=checksum))
    trust(sha256_file(path), path, "built")
    return path


def add_foreign(bundle, name="foreign"):
    """An engine that came with the bundle: it fits, but this user has neither built nor trusted it."""
    path = add_engine(bundle, name)
    distrust(sha256_file(path))
    return path
