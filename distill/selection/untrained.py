"""Networks exported untrained, to be timed: a folder of bundles with an index (`deploy.measure.records`).

The speed of convolutions depends on shapes only, never on values: initial weights, untouched batch norms and INT8
ranges of 1 run as fast as trained and calibrated ones (docs/budget.md has the figures).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import INT8_CPU, MODEL, ClassInfo, InputSpec, Manifest, OutputSpec
from deploy.files.atomic import write_json
from deploy.heartbeat import working
from deploy.measure.records import CANDIDATES, Candidate, Candidates, Option, named
from deploy.quantize.qdq import cpu_form, insert, layers
from distill.export.parity import device_form
from distill.export.to_onnx import export_onnx
from distill.export_config import ExportConfig
from distill.tasks.segmentation import argmax_head
from distill.tasks.task import Head
from student.device import folded
from student.zoo import count_macs, count_parameters


@dataclass(frozen=True)
class Untrained:
    """A network to export."""

    arch: str
    """Its name, see `student.candidates.canonical`."""
    options: dict[str, Option]
    """Its options that are not at their defaults."""
    build: Callable[[], nn.Module]
    """Builds it with these options; `UserError` where that is not possible."""

    @property
    def name(self) -> str:
        """The network with its options."""
        return named(self.arch, self.options)


@dataclass(frozen=True)
class Target:
    """What all candidates are exported for: input, outputs and the end of the graph."""

    spec: InputSpec
    classes: tuple[ClassInfo, ...]
    outputs: tuple[OutputSpec, ...]
    task: str = "segmentation"
    head: Head = argmax_head
    export: ExportConfig = field(default_factory=ExportConfig)
    int8: bool = True
    """Write the INT8 model of CPUs, too."""


def segmentation_target(
    size: tuple[int, int], channels: int, classes: int, export: ExportConfig, int8: bool
) -> Target:
    """A target without data: images of three channels are uint8, others float32.

    Args:
        size: height and width of the input.
        channels: channels of the image.
        classes: number of classes.
        export: how to export.
        int8: see `Target.int8`.
    """
    height, width = size
    optical, zeros, ones = channels == 3, (0.0,) * channels, (1.0,) * channels
    spec = InputSpec(
        channels=tuple(f"c{number}" for number in range(channels)),
        height=height,
        width=width,
        dtype="uint8" if optical else "float32",
        layout="NHWC" if optical else "NCHW",
        mean=zeros,
        std=ones,
    )
    outputs = (
        OutputSpec("labels", "uint8", ("batch", height, width), "class id of each pixel"),
        OutputSpec("logits", "float32", ("batch", classes, "h", "w"), "class scores, at the stride"),
    )
    infos = tuple(ClassInfo(f"class {number}", (number, number, number)) for number in range(classes))
    return Target(spec, infos, outputs, export=export, int8=int8)


Ranges = Callable[[bytes, Sequence[str]], Mapping[str, float]]
"""From an fp32 ONNX file and names of its tensors to the range of each (see `deploy.quantize.qdq.insert`)."""


def unit_ranges(_: bytes, tensors: Sequence[str]) -> dict[str, float]:
    """Ranges of 1 for all tensors: right in speed, wrong in values."""
    return dict.fromkeys(tensors, 1.0)


def untrained_models(
    network: nn.Module,
    spec: InputSpec,
    head: Head = argmax_head,
    export: ExportConfig | None = None,
    ranges: Ranges = unit_ranges,
) -> tuple[bytes, bytes]:
    """Export a network, and quantize it without data.

    Args:
        network: returns `teacher.pspnet.Output`.
        spec: its input.
        head: the end of the graph.
        export: opset and form; default: `ExportConfig()`.
        ranges: of the quantized tensors.

    Returns:
        The ONNX files in fp32, and in INT8 as TensorRT takes it (`deploy.quantize.qdq.insert`).
    """
    export = export or ExportConfig()
    model = export_onnx(device_form(network, spec, head, fold=export.fold), export.opset)
    tensors = list(dict.fromkeys(tensor for layer in layers(model) for tensor in layer.tensors))
    return model, insert(model, ranges(model, tensors))


def write_candidates(
    folder: Path, networks: Sequence[Untrained], target: Target, say: Callable[[str], None]
) -> Candidates:
    """Export networks into a folder: a bundle each, and the index.

    Args:
        folder: created where it is missing; bundles of the same names are replaced.
        networks: the networks.
        target: what they are exported for.
        say: told before each export.

    Raises:
        UserError: a network cannot be built, or a folder cannot be written.
    """
    candidates: list[Candidate] = []
    for number, one in enumerate(networks):
        what = f"exporting {one.name} ({number + 1} of {len(networks)})"
        say(what)
        with working(what, say):
            candidates.append(_write_candidate(folder, number, one, target))
    index = Candidates(tuple(candidates))
    write_json(folder / CANDIDATES, index)
    return index


def _write_candidate(folder: Path, number: int, one: Untrained, target: Target) -> Candidate:
    """Write the bundle of a network, and return its entry of the index."""
    network, spec = one.build().eval(), target.spec
    device = folded(network)
    candidate = Candidate(
        one.arch,
        one.options,
        count_parameters(device),
        count_macs(device, len(spec.channels), (spec.height, spec.width)),
        f"{number:02d}-{_file_name(one.name)}.bundle",
    )
    manifest = Manifest(
        name=one.name,
        task=target.task,
        classes=target.classes,
        input=spec,
        outputs=target.outputs,
        provenance={"weights": "untrained, for measurements only"},
    )
    model, int8 = untrained_models(network, spec, target.head, target.export)
    files, precision = {MODEL: model}, {MODEL: "fp32"}
    if target.int8:
        files[INT8_CPU], precision[INT8_CPU] = cpu_form(int8), "int8"
    write_bundle(folder / candidate.bundle, manifest, files, precision)
    return candidate


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-=." else "-" for letter in name)
