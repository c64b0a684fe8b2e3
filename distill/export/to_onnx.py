"""Export a trained network to a bundle: ONNX model, manifest, golden outputs."""

import gc
import io
import logging
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
import torch

from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import GOLDEN, MODEL, InputSpec, Manifest, plain_name
from deploy.inference.preprocess import check_pixels, prepare, to_network
from deploy.signing.sbom import DATA, PACKAGES
from distill.config import DataConfig
from distill.data.fingerprint import digest_of
from distill.export.deployable import Deployable, TorchEngine
from distill.export.evaluate import eval_samples
from distill.tasks.task import PreparedData

GOLDEN_IMAGES = 2


def input_spec(data: PreparedData, config: DataConfig) -> InputSpec:
    """The network input of a data set: uint8 N×H×W×C for optical images, else float32 N×C×H×W with NaN as no data.

    Images that are normalized by their own statistics (see `deploy.inference.normalize`) are always float32.
    """
    splits, stats = data.splits, data.stats
    optical = splits.optical and config.normalize == "set"
    return InputSpec(
        channels=tuple(map(plain_name, splits.channels)),
        height=config.size[0],
        width=config.size[1],
        dtype="uint8" if optical else "float32",
        layout="NHWC" if optical else "NCHW",
        mean=stats.mean,
        std=stats.std,
        normalize=config.normalize,
        resize=config.resize,
        nodata=None if optical else "nan",
        depth=data.task.depth_channel(splits),
        **asdict(stats.scale),
    )


def export_onnx(deployable: Deployable, opset: int) -> bytes:
    """Export the deployable to ONNX: fixed height and width, any batch size, outputs `labels` and `logits`.

    Args:
        deployable: on any device.
        opset: version of the ONNX operator set.

    Returns:
        The bytes of the ONNX file.
    """
    example = torch.from_numpy(_blank(deployable.spec, batch=2))
    device = next(deployable.parameters()).device
    with warnings.catch_warnings(), _uncollected(), _quiet("torch.onnx", "onnxscript", "torch.export"):
        warnings.simplefilter("ignore")  # the exporter warns about its own deprecations
        program = torch.onnx.export(
            deployable.eval(),
            (example.to(device),),
            dynamo=True,
            input_names=["image"],
            output_names=["labels", "logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def write_model_bundle(
    folder: Path, model: bytes, deployable: Deployable, data: PreparedData, provenance: dict[str, str]
) -> Manifest:
    """Write the bundle of an exported network; `extend_bundle` can add measurements later.

    Args:
        folder: folder of the bundle; its stem is the name of the bundle.
        model: the ONNX file.
        deployable: the exported network, for the golden outputs.
        data: classes, task and test images.
        provenance: where the weights came from.
    """
    manifest = Manifest(
        name=plain_name(folder.stem),
        task=data.task.device.name,
        classes=data.splits.classes,
        input=deployable.spec,
        outputs=data.task.output_specs(deployable.spec, data.stats),
        provenance=provenance | _data_digests(data) | _versions(),
    )
    files = {MODEL: model, GOLDEN: _golden(deployable, data)}
    return write_bundle(folder, manifest, files, precision={MODEL: "fp32"})


def _golden(deployable: Deployable, data: PreparedData) -> bytes:
    """Network inputs from the test split with the outputs of torch, as an .npz file."""
    images = [image for _, image, _, _ in eval_samples(data.splits.test, data, GOLDEN_IMAGES)]
    inputs = np.stack([_first_window(image, deployable.spec) for image in images])
    outputs = TorchEngine(deployable, next(deployable.parameters()).device).run(inputs)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=inputs, labels=outputs["labels"], logits=outputs["logits"])
    return buffer.getvalue()


def _first_window(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    if spec.resize == "tile" and image.shape[0] >= spec.height and image.shape[1] >= spec.width:
        return to_network(check_pixels(image, spec)[0][: spec.height, : spec.width], spec)
    return prepare(image, spec)[0]


def _blank(spec: InputSpec, batch: int) -> np.ndarray:
    channels = len(spec.channels)
    if spec.layout == "NHWC":
        return np.zeros((batch, spec.height, spec.width, channels), spec.dtype)
    return np.zeros((batch, channels, spec.height, spec.width), spec.dtype)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's metadata: it has source lines and paths of the exporting machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]


def _data_digests(data: PreparedData) -> dict[str, str]:
    """The fingerprint of each split that the network was made with."""
    splits = {"train": data.splits.train, "val": data.splits.val}
    return {f"{DATA}{name}": digest_of(reader) for name, reader in splits.items()}


def _versions() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "edgedistill": "source",
    }  # of a clone that was never installed
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which takes a tenth of an export's time: it makes millions of small objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _quiet:
    """Silence the messages of loggers below errors within a block."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)
