"""The convolutions of the student, as the linter reads them from its files."""

from importlib.util import find_spec
from pathlib import Path

from deploy.bundle.manifest import INT8_CPU, MODEL
from distill.page.tables import Table

MOST = 400
"""Rows of the table; larger networks are cut."""


def layers_table(bundle: Path) -> Table | None:
    """Kernel, output, multiply-accumulates and precision of each convolution; None without the package onnx."""
    if find_spec("onnx") is None:
        return None
    from deploy.lint.pairs import runs_in_int8  # needs onnx
    from deploy.lint.reading import read_graph

    int8 = (bundle / INT8_CPU).is_file()
    graph = read_graph((bundle / (INT8_CPU if int8 else MODEL)).read_bytes(), bundle)
    rows = []
    for conv in list(graph.of("Conv"))[:MOST]:
        kernel, output = graph.shape(conv.inputs[1]), graph.shape(conv.outputs[0])
        precision = "INT8" if int8 and runs_in_int8(graph, conv, "onnxruntime") else "FP32"
        rows.append(
            [
                conv.name or conv.outputs[0],
                "×".join(map(str, kernel)),
                "×".join(map(str, output[1:])),
                f"{graph.macs(conv) / 1e6:.2f}",
                f"{100 * graph.share(conv):.1f}",
                precision,
            ]
        )
    return Table(["convolution", "weights", "output C×H×W", "MMAC", "share %", "precision"], rows)
