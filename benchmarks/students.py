"""What do students cost at inference? `python benchmarks/students.py [NAME …] [--size 320] [--json FILE]`.

Builds each network untrained, exports it as a run does, quantizes it (min-max ranges of noise: speed does not depend on
them) and times it on every CPU backend in fp32 and INT8, all in turns. A name may carry options, as in
`pspnet/resnet18:output_stride=16,head_channels=128`. `benchmarks/peers.py` compares with other packages' networks.
With `--grasps` the networks are those for maps of grasps in depth images.
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

from benchmarks import machine
from deploy.backends.auto import installed
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.openvino_cpu import OvEngine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.errors import exit_with_one_line
from deploy.files.atomic import write_json
from deploy.latency.latency import Summary, measure_interleaved
from deploy.table import format_table, int8_notes
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
GRASP_NAMES = (
    "ggcnn",
    "ggcnn2",
    "edge-nano:detail=True",
    "edge-small:detail=True",
    "pspnet/resnet18:output_stride=16,head_channels=128,detail=True",
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
    # start-up time: torch is not needed for --help
    from benchmarks.students_networks import candidates, grasp_candidates

    if options.grasps:
        spec, found = depth_spec(options.size), grasp_candidates(options.names or GRASP_NAMES)
    else:
        spec, found = color_spec(options.size), candidates(options.names or NAMES, options.classes)
    rows = measure(found, spec, options.classes, options.runs)
    about = machine.describe()
    print(machine.summary(about))
    print(table(rows))
    if options.json:
        write_json(
            options.json, {"machine": about, "size": options.size, "rows": [asdict(row) for row in rows]}
        )
    return 0


def color_spec(size: int) -> InputSpec:
    """The input of a network for square color images."""
    return InputSpec(("R", "G", "B"), size, size, "uint8", "NHWC", mean=(120.0,) * 3, std=(60.0,) * 3)


def depth_spec(size: int) -> InputSpec:
    """The input of a network for square depth images, in meters about their mean."""
    return InputSpec(("depth",), size, size, "float32", "NCHW", mean=(0.0,), std=(0.03,))


def measure(found: Sequence["Candidate"], spec: InputSpec, classes: int, runs: int) -> list[Row]:
    """Time all candidates on all backends in both precisions, in turns.

    Args:
        found: the candidates.
        spec: their input.
        classes: how many they tell apart.
        runs: measured inferences of each.
    """
    from benchmarks.students_networks import models_of  # start-up time: torch

    files: dict[str, dict[str, Path]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(found):
            files[one.name] = {}
            for precision, model in models_of(one, spec).items():
                files[one.name][precision] = Path(folder) / f"{number}-{precision}.onnx"
                files[one.name][precision].write_bytes(model)
        stats = timed(files, spec, classes, runs)
    rows = []
    for one in found:
        p50, p90 = ({form: getattr(its, q) for form, its in stats[one.name].items()} for q in ("p50", "p90"))
        rows.append(Row(one.name, one.parameters, one.macs(spec.height), p50, p90))
    return rows


def timed(
    files: Mapping[str, Mapping[str, Path]], spec: InputSpec, classes: int, runs: int
) -> dict[str, dict[str, Summary]]:
    """Time ONNX files on all backends, in turns.

    Args:
        files: by network and precision.
        spec: their input.
        classes: how many they tell apart.
        runs: measured inferences of each.

    Returns:
        Milliseconds of the engine by network, and by backend and precision, such as "openvino int8".
    """
    from benchmarks.students_networks import noise_image  # start-up time: torch

    image = noise_image(spec, 0)
    image = image if spec.layout == "NHWC" else image.transpose(1, 2, 0)
    names = tuple(ClassInfo(str(number), (0, 0, 0)) for number in range(classes))
    models: dict[tuple[str, str], SegmentationModel] = {}
    for name, forms in files.items():
        for precision, file in forms.items():
            for backend in installed():
                engine = ENGINES[backend](file, name=f"{backend} {precision}")
                models[name, engine.name] = SegmentationModel(spec, names, engine)
    stats = measure_interleaved([(model, image) for model in models.values()], runs)
    found: dict[str, dict[str, Summary]] = {name: {} for name in files}
    for (name, form), stat in zip(models, stats, strict=True):
        found[name][form] = stat.engine
    return found


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
    header = ("network", "params M", "GMAC", *(f"{form} ms" for form in forms))
    named = {
        (f"{row.name} on {form.split()[0]}", form.split()[1]): ms
        for row in rows
        for form, ms in row.ms.items()
    }
    return "\n".join([format_table(header, lines), *int8_notes(named)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/students.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks, with options after a colon")
    parser.add_argument("--size", type=int, default=320, help="side of the square input in pixels (320)")
    parser.add_argument("--classes", type=int, default=11, help="classes (11)")
    parser.add_argument("--grasps", action="store_true", help="networks for maps of grasps in depth images")
    parser.add_argument("--runs", type=int, default=50, help="measured inferences of each model (50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
