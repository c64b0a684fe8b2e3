"""Measurements as a device would have written them."""

from deploy.measure.records import Candidate, Measurement, Option, Row, Shape, Timed

SHAPE = Shape(320, 320, 3, 11, "segmentation", "uint8")


def timed(ms: float, backend: str = "openvino", precision: str = "int8") -> Timed:
    return Timed(backend, precision, 50, ms, 1.1 * ms, 1.2 * ms)


def row(
    arch: str,
    gmac: float,
    *forms: Timed,
    options: dict[str, Option] | None = None,
    shape: Shape = SHAPE,
) -> Row:
    one = Candidate(arch, options or {}, 1000, round(gmac * 1e9), f"{arch.replace('/', '-')}.bundle")
    return Row(one.name, shape, forms, one)


def measurement(*rows: Row) -> Measurement:
    return Measurement({"cpu": "Some CPU"}, None, rows)


EDGE = measurement(
    row("edge-medium", 1.0, timed(3.6), timed(10.0, precision="fp32")),
    row("edge-nano", 0.25, timed(1.6), timed(3.3, precision="fp32")),
    row("edge-small", 0.58, timed(2.6), timed(6.5, "onnxruntime", "fp32")),
)
"""Three candidates, not in order."""
