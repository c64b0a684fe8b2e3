"""A model repository for NVIDIA's Triton inference server (docs: "Model Repository", "Model Configuration").

REPOSITORY/NAME/config.pbtxt    what the model takes and returns, batching, instances
REPOSITORY/NAME/labels.txt      class names, one a line
REPOSITORY/NAME/1/model.onnx    or model.plan
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.manifest import FP16, INT8_CPU, MODEL, InputSpec, Manifest, OutputSpec
from deploy.errors import UserError
from deploy.files.staging import staged

TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16", "int64": "TYPE_INT64"}
MODELS = {"fp32": MODEL, "fp16": FP16, "int8": INT8_CPU}
"""The model of each precision that ONNX Runtime runs."""
INSTANCE = {"cpu": "KIND_CPU", "gpu": "KIND_GPU"}


@dataclass(frozen=True)
class Serving:
    """How Triton runs the model."""

    name: str
    max_batch: int = 8
    """Largest batch that Triton puts together; 0: none, the model is called with one image at a time."""
    delay_us: int = 1000
    """How long it waits for a batch to fill."""
    instances: int = 1
    device: str = "cpu"
    without_threshold: bool = False
    """Write a bundle with a threshold, although its graph answers the class of the highest score."""


def write_repository(bundle: Path, out: Path, precision: str, serving: Serving) -> Path:
    """Write the folder of one model into a repository.

    Args:
        bundle: the bundle; its files are checked.
        out: the repository; other models in it stay.
        precision: "fp32", "fp16" or "int8".
        serving: name of the model and how it is run.

    Returns:
        The folder of the model.

    Raises:
        UserError: the bundle lacks the precision or is damaged, its graph does not decide as the bundle or takes no
            batch, the name is unsuitable, or the repository has a model of that name.
    """
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", serving.name) is None:
        raise UserError(f"--name {serving.name}: use letters, digits, points, dashes and underscores")
    source = MODELS[precision]
    if source not in manifest.files:
        held = [name for name, file in MODELS.items() if file in manifest.files]
        raise UserError(f"{bundle}: has no {precision} model; it has {', '.join(held)}")
    if manifest.threshold is not None and not serving.without_threshold:
        raise UserError(
            f"{bundle}: labels {manifest.classes[1].name} from a probability of {manifest.threshold:g}, which its "
            "graph does not do: Triton would answer other labels; decide on the logits in the client, and give "
            "--without-threshold"
        )
    if serving.max_batch and not takes_batches(manifest):
        raise UserError(f"{bundle}: its graph takes one image at a time; give --max-batch 0")
    folder = out / serving.name
    if folder.exists():
        raise UserError(f"{folder}: exists; remove it, or choose another --name")
    out.mkdir(parents=True, exist_ok=True)
    with staged(folder) as new:
        version = new / "1"
        version.mkdir(parents=True)
        shutil.copyfile(bundle / source, version / "model.onnx")
        for extra in _external(manifest):
            shutil.copyfile(bundle / extra, version / extra)
        (new / "labels.txt").write_text(
            "".join(f"{one.name}\n" for one in manifest.classes), encoding="utf-8"
        )
        (new / "config.pbtxt").write_text(config(manifest, serving), encoding="utf-8")
    return folder


def takes_batches(manifest: Manifest) -> bool:
    """Whether the first axis of every output is of variable size."""
    return all(isinstance(one.shape[0], str) for one in manifest.outputs)


def config(manifest: Manifest, serving: Serving) -> str:
    """The text of `config.pbtxt`, in protobuf's text format of `inference.ModelConfig`."""
    return "".join(f"{line}\n" for line in _lines(manifest, serving))


def _lines(manifest: Manifest, serving: Serving) -> Iterator[str]:
    yield f'name: "{serving.name}"'
    yield 'backend: "onnxruntime"'
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
    yield f"  kind: {INSTANCE[serving.device]}"
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
