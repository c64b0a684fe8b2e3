"""A model repository for NVIDIA's Triton inference server (docs: "Model Repository", "Model Configuration").

REPOSITORY/NAME/config.pbtxt    what the model takes and returns, batching, instances
REPOSITORY/NAME/labels.txt      class names, one a line
REPOSITORY/NAME/1/model.onnx    or model.plan, an engine of TensorRT
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.manifest import FP16, INT8_CPU, MODEL, InputSpec, Manifest, OutputSpec
from deploy.errors import UserError
from deploy.files.staging import staged
from deploy.triton.engine import engine_for

TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16", "int64": "TYPE_INT64"}
MODELS = {"fp32": MODEL, "fp16": FP16, "int8": INT8_CPU}
"""The model of each precision that ONNX Runtime runs."""
FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
"""Triton's backends, and the name of the model's file for each."""
MAX_BATCH = 8
INSTANCE = {"cpu": "KIND_CPU", "gpu": "KIND_GPU"}


@dataclass(frozen=True)
class Serving:
    """How Triton runs the model."""

    name: str
    backend: str = "onnxruntime"
    """One of `FILES`."""
    max_batch: int | None = None
    """Largest batch that Triton puts together; 0: none, the model is called with one image at a time. None: that of the
    engine, or `MAX_BATCH`."""
    delay_us: int = 1000
    """How long it waits for a batch to fill."""
    instances: int = 1
    device: str | None = None
    """One of `INSTANCE`; None: "cpu", but an engine runs on the "gpu"."""
    without_threshold: bool = False
    """Write a bundle with a threshold, although its graph answers the class of the highest score."""


def write_repository(bundle: Path, out: Path, precision: str, serving: Serving) -> Path:
    """Write the folder of one model into a repository.

    Args:
        bundle: the bundle; its files are checked.
        out: the repository; other models in it stay.
        precision: "fp32", "fp16" or "int8", of an engine also "fp8".
        serving: name of the model and how it is run.

    Returns:
        The folder of the model.

    Raises:
        UserError: the bundle lacks the precision or is damaged, its graph or engine does not decide as the bundle or
            takes no such batch, the name is unsuitable, or the repository has a model of that name.
    """
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", serving.name) is None:
        raise UserError(f"--name {serving.name}: use letters, digits, points, dashes and underscores")
    if manifest.threshold is not None and not serving.without_threshold:
        raise UserError(
            f"{bundle}: labels {manifest.classes[1].name} from a probability of {manifest.threshold:g}, which its "
            "graph does not do: Triton would answer other labels; decide on the logits in the client, and give "
            "--without-threshold"
        )
    files, serving = _files(bundle, manifest, precision, serving)
    folder = out / serving.name
    if folder.exists():
        raise UserError(f"{folder}: exists; remove it, or choose another --name")
    out.mkdir(parents=True, exist_ok=True)
    with staged(folder) as new:
        version = new / "1"
        version.mkdir(parents=True)
        for name, content in files.items():
            if isinstance(content, bytes):
                (version / name).write_bytes(content)
            else:
                shutil.copyfile(content, version / name)
        (new / "labels.txt").write_text(
            "".join(f"{one.name}\n" for one in manifest.classes), encoding="utf-8"
        )
        (new / "config.pbtxt").write_text(config(manifest, serving), encoding="utf-8")
    return folder


def _files(
    bundle: Path, manifest: Manifest, precision: str, serving: Serving
) -> tuple[dict[str, Path | bytes], Serving]:
    """The files of the model by their names, and how it can be run."""
    if serving.backend == "tensorrt":
        plan, most = engine_for(bundle, manifest, precision, serving.max_batch)
        if serving.device == "cpu":
            raise UserError("--device cpu: engines of TensorRT run on a GPU; leave it out")
        return {FILES["tensorrt"]: plan}, replace(serving, max_batch=most, device="gpu")
    source = MODELS.get(precision)
    if source not in manifest.files:
        held = [name for name, file in MODELS.items() if file in manifest.files]
        raise UserError(f"{bundle}: has no {precision} model; it has {', '.join(held)}")
    most = MAX_BATCH if serving.max_batch is None else serving.max_batch
    if most and not takes_batches(manifest):
        raise UserError(f"{bundle}: its graph takes one image at a time; give --max-batch 0")
    files: dict[str, Path | bytes] = {name: bundle / name for name in _external(manifest)}
    files[FILES["onnxruntime"]] = bundle / source
    return files, replace(serving, max_batch=most, device=serving.device or "cpu")


def takes_batches(manifest: Manifest) -> bool:
    """Whether the first axis of every output is of variable size."""
    return all(isinstance(one.shape[0], str) for one in manifest.outputs)


def config(manifest: Manifest, serving: Serving) -> str:
    """The text of `config.pbtxt`, in protobuf's text format of `inference.ModelConfig`."""
    return "".join(f"{line}\n" for line in _lines(manifest, serving))


def _lines(manifest: Manifest, serving: Serving) -> Iterator[str]:
    yield f'name: "{serving.name}"'
    yield f'backend: "{serving.backend}"'
    yield f"max_batch_size: {serving.max_batch}"
    yield from _input(manifest.input, serving)
    for output in manifest.outputs:
        yield from _output(output, serving)
    if serving.max_batch:
        yield "dynamic_batching {"
        yield f"  max_queue_delay_microseconds: {serving.delay_us}"
        yield "}"
    yield "instance_group [{"
    yield f"  count: {serving.instances}"
    yield f"  kind: {INSTANCE[serving.device or 'cpu']}"
    yield "}]"


def _input(spec: InputSpec, serving: Serving) -> Iterator[str]:
    sides = [spec.height, spec.width]
    dims = [*sides, len(spec.channels)] if spec.layout == "NHWC" else [len(spec.channels), *sides]
    yield from _tensor("input", "image", spec.dtype, dims, serving)


def _output(spec: OutputSpec, serving: Serving) -> Iterator[str]:
    dims = [size if isinstance(size, int) else -1 for size in spec.shape[1:]]
    labels = '  label_filename: "labels.txt"' if spec.name == "labels" else ""
    yield from _tensor("output", spec.name, spec.dtype, dims, serving, labels)


def _tensor(
    kind: str, name: str, dtype: str, dims: Sequence[int], serving: Serving, further: str = ""
) -> Iterator[str]:
    if dtype not in TYPES:
        raise UserError(f"{kind} {name}: is {dtype}, which Triton's configuration has no name for here")
    whole = dims if serving.max_batch else [1, *dims]  # without batching Triton passes the batch axis through
    yield f"{kind} [{{"
    yield f'  name: "{name}"'
    yield f"  data_type: {TYPES[dtype]}"
    yield f"  dims: [ {', '.join(map(str, whole))} ]"
    if further:
        yield further
    yield "}]"


def _external(manifest: Manifest) -> list[str]:
    """Files that hold weights of a model beside it."""
    return [name for name in manifest.files if name.endswith(".data")]
