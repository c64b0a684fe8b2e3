"""A bundle for a DLA alone, without a GPU beside it: the core of the network, if the DLA has all of its layers."""

from pathlib import Path

from deploy.backends.engine import TENSORRT_MODELS
from deploy.backends.tensorrt_gpu.options import BuildOptions
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.manifest import MODEL
from deploy.errors import UserError
from deploy.lint.dla import layers
from deploy.lint.reading import read_graph
from deploy.quantize.core_form import core_form

FLAG = "--no-gpu-fallback"


def core_for_dla(bundle: Path, options: BuildOptions) -> bytes:
    """The ONNX of the bundle's core (`deploy.quantize.core_form`), which a DLA can run alone as far as is known.

    It is made of the file of the precision or, before there is one, of the fp32 file.

    Raises:
        UserError: the bundle has no core, or no DLA can run it alone.
    """
    manifest = read_manifest(bundle)
    if manifest.task != "segmentation":
        raise UserError(
            f"{FLAG}: the maps of a {manifest.task} bundle are finished by layers that no DLA runs; leave it out"
        )
    path = bundle / TENSORRT_MODELS[options.precision]
    path = path if path.is_file() else bundle / MODEL
    try:
        core = core_form(path.read_bytes(), manifest.input, options.batch[0])
    except UserError as error:
        raise UserError(f"{FLAG}: {path}: {error}") from error
    if why := not_alone(core):
        raise UserError(
            f"{FLAG}: {path.name}, even without cast, normalization and arg-max, has {why}; leave it out, and they"
            f" run on the GPU. All: edgedistill lint {path} --target dla"
        )
    return core


def not_alone(core: bytes, shown: int = 5) -> str:
    """The operators of a network that a DLA does not have, in one line; "" if it has all.

    Raises:
        UserError: as `read_graph`.
    """
    found = list(layers(read_graph(core), "dla"))
    first = "; ".join(f"{one.where}: {one.message.partition(', so it runs')[0]}" for one in found[:shown])
    more = f"; and {len(found) - shown} more" if len(found) > shown else ""
    return f"{len(found)} operators that no DLA runs ({first}{more})" if found else ""
