"""Layers before and after the form for TensorRT. `python benchmarks/int8_layers.py [NAME …] [--json FILE]`.

Before: Q and DQ on both terms of every sum, the rest in fp32. Untrained networks are compiled in both forms of the same
INT8 grids with TensorRT-RTX, which needs no GPU. Counted are layers, sums that a convolution's kernel computes too,
conversions, and products by type. `grasp:NAME` ends as grasp maps do. `benchmarks/int8_forms.py` scores bundles.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import onnx

from benchmarks.int8_forms import compile_ahead, counts
from benchmarks.networks import Candidate, color_spec, exported, network_of, settled
from deploy.backends.tensorrt_gpu.layer_report import LayerReport
from deploy.errors import exit_with_one_line
from deploy.files.atomic import write_json
from deploy.quantize.half import to_fp16
from deploy.quantize.tensorrt_form import tensorrt_form
from deploy.table import format_table
from distill.tasks.grasp import grasp_head

NAMES = (
    *("pspnet/resnet18:output_stride=16", "pspnet/resnet50:output_stride=16"),
    *("pspnet/mobilenetv3_large_100:output_stride=16", "unet", "edge-small"),
    "grasp:pspnet/resnet18:output_stride=16,detail=True",
)
MAPS = 4
"""Outputs of a grasp network."""


def main(argv: Sequence[str]) -> int:
    """Compile the networks, print a table, and write the JSON."""
    options = _parser().parse_args(argv)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.names:
        results[name] = measure(name, options.size, options.target)
        print(f"{name}\n{table(results[name])}\n", flush=True)
        if options.json:
            write_json(options.json, results)
    return 0


def measure(name: str, size: int, target: str) -> dict[str, dict[str, float]]:
    """Numbers of layers by form."""
    models = forms(name, size)
    sums = sums_of(models["fp32"])
    found = {}
    for form, model in models.items():
        report = compile_ahead(model, Path(f"{form}.onnx"), target)
        found[form] = counts(report) | {"fused sums": fused(report, sums)}
    return found


def forms(name: str, size: int) -> dict[str, bytes]:
    """The ONNX files of a network."""
    arch = name.removeprefix("grasp:")
    spec, grasp = color_spec(size), arch != name
    network = settled(network_of(arch, MAPS if grasp else 3))
    candidate = (
        Candidate(name, network, partial(grasp_head, quality="clamp")) if grasp else Candidate(name, network)
    )
    model, int8 = exported(candidate, spec)
    return {"fp32": model, "fp16": to_fp16(model), "int8 complete": int8, "int8": tensorrt_form(int8)}


def sums_of(model: bytes) -> set[str]:
    """Names of the sums of two features, not of a bias."""
    graph = onnx.load_model_from_string(model).graph
    constants = {one.name for one in graph.initializer}
    return {
        node.name for node in graph.node if node.op_type == "Add" and not constants.intersection(node.input)
    }


def fused(report: LayerReport, sums: Collection[str]) -> int:
    """How many of these sums a convolution's layer computes."""
    layers = {id(one.layer): one.layer for one in report.products if one.layer and one.convolution}
    return len({name for layer in layers.values() for name in layer.onnx} & set(sums))


def table(measured: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as text."""
    first = ("layers", "conversions", "fused sums")
    columns = [*first, *sorted({key for row in measured.values() for key in row} - set(first))]
    rows = [(form, *(str(row.get(column, 0)) for column in columns)) for form, row in measured.items()]
    return format_table(("form", *columns), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/int8_layers.py", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"default: {' '.join(NAMES)}")
    parser.add_argument("--size", type=int, default=160, help="side of the image (default %(default)s)")
    parser.add_argument("--target", default="sm86", help="compute capability (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
