"""Open a bundle's network on one of the CPU backends."""

from pathlib import Path

from deploy.backends.engine import Engine
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.openvino_cpu import OvEngine
from deploy.backends.setting import BF16, Setting
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.network_check import check_network


def open_cpu(folder: Path, setting: Setting, blob: bytes | None = None) -> Engine:
    """Open the bundle's network.

    Args:
        folder: folder of the bundle.
        setting: how to run it; the bundle has its precision.
        blob: see `OvEngine`.

    Raises:
        UserError: the backend is not installed, or the model does not fit the manifest or does not load.
    """
    check_network(setting.file(folder), read_manifest(folder))
    return engine_of(folder, setting, blob)


def engine_of(folder: Path, setting: Setting, blob: bytes | None = None) -> Engine:
    """`open_cpu` without comparing the model with the manifest, for networks that are timed but are no bundle's.

    Raises:
        UserError: the backend is not installed, or the model does not load.
    """
    file, threads, name = setting.file(folder), setting.threads, setting.name
    if setting.backend == "openvino":
        return OvEngine(file, threads, name, bf16=setting.precision == BF16, blob=blob)
    return OrtEngine(file, threads, name=name, spinning=setting.spinning)
