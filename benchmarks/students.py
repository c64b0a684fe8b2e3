"""What do students cost at inference? `python benchmarks/students.py [NAME …] [--size 320] [--peers] [--json FILE]`.

Builds each network untrained, exports it as a run does, quantizes it (min-max ranges of noise: speed does not depend on
them) and times it on every CPU backend in fp32 and INT8, all in turns. With `--peers` torchvision's LR-ASPP-MobileNetV3
and segmentation-models-pytorch's DeepLabV3+-MobileNetV2 and U-Net-ResNet18 take part, if these packages are installed.
A name may carry options, as in `pspnet/resnet18:output_stride=16,head_channels=128`.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import machine
from deploy.backends.auto import installed
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.openvino_cpu import OvEngine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.errors import exit_with_one_line
from deploy.files.atomic import write_json
from deploy.latency.latency import measure_interleaved
from deploy.table import format_table
from deploy.tasks.segmentation.model import SegmentationModel

if TYPE_CHECKING:
    from benchmarks.students_networks import Candidate

NAMES = (
    "edge-nano",
    "edge-small",
    "edge-small:detail=True",
    "edge-medium",
    "pspnet/resnet18:output_stride=16,head_channels=128",
    "pspnet/tf_efficientnet_lite0:output_stride=16,head_channels=128",
    "pspnet/mobilenetv3_large_100:output_stride=16,head_channels=128",
    "deeplabv3plus/mobilenetv2_100",
)
ENGINES = {"onnxruntime": OrtEngine, "openvino": OvEngine}


@dataclass(frozen=True)
class Row:
    """One network."""

    name: str
    parameters: int
    macs: int
    ms: Mapping[str, float]
    """Median of one inference by backend and precision, such as "openvino int8"."""
    p90: Mapping[str, float]


def main(argv: Sequence[str]) -> int:
    """Measure, print the table and write the JSON."""
    options = _parser().parse_args(argv)
    spec = InputSpec(
        ("R", "G", "B"), options.size, options.size, "uint8", "NHWC", mean=(120.0,) * 3, std=(60.0,) * 3
    )
    # start-up time: torch is not needed for --help
    from benchmarks.students_networks import candidates

    found = candidates(options.names or NAMES, options.classes, options.peers)
    rows = measure(found, spec, options.classes, options.runs)
    about = machine.describe()
    print(machine.summary(about))
    print(table(rows))
    if options.json:
        write_json(
            options.json, {"machine": about, "size": options.size, "rows": [asdict(row) for row in rows]}
        )
    return 0


def measure(found: Sequence["Candidate"], spec: InputSpec, classes: int, runs: int) -> list[Row]:
    """Time all candidates on all backends in both precisions, in turns.

    Args:
        found: the candidates.
        spec: their input.
        classes: how many they tell apart.
        runs: measured inferences of each.
    """
    from benchmarks.students_networks import models_of  # start-up time: torch

    image = np.random.default_rng(0).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    names = tuple(ClassInfo(str(number), (0, 0, 0)) for number in range(classes))
    models: dict[tuple[str, str], SegmentationModel] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(found):
            for precision, model in models_of(one, spec).items():
                file = Path(folder) / f"{number}-{precision}.onnx"
                file.write_bytes(model)
                for backend in installed():
                    engine = ENGINES[backend](file, name=f"{backend} {precision}")
                    models[one.name, engine.name] = SegmentationModel(spec, names, engine)
        stats = measure_interleaved([(model, image) for model in models.values()], runs)
    rows = []
    for one in found:
        own = {
            form: stat.engine for (name, form), stat in zip(models, stats, strict=True) if name == one.name
        }
        p50, p90 = ({form: getattr(its, q) for form, its in own.items()} for q in ("p50", "p90"))
        rows.append(Row(one.name, one.parameters, one.macs(spec.height), p50, p90))
    return rows


def table(rows: Sequence[Row]) -> str:
    """One line a network: parameters, operations, milliseconds of each backend and precision (median, in turns)."""
    forms = list(rows[0].ms)
    lines = [
        (
            row.name,
            f"{row.parameters / 1e6:.2f}",
            f"{row.macs / 1e9:.3f}",
            *(f"{row.ms[form]:.2f}" for form in forms),
        )
        for row in rows
    ]
    return format_table(("network", "params M", "GMAC", *(f"{form} ms" for form in forms)), lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/students.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks, with options after a colon")
    parser.add_argument("--size", type=int, default=320, help="side of the square input in pixels (320)")
    parser.add_argument("--classes", type=int, default=11, help="classes (11)")
    parser.add_argument("--runs", type=int, default=50, help="measured inferences of each model (50)")
    parser.add_argument("--peers", action="store_true", help="networks of other packages, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
