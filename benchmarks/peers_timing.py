"""Time bundles side by side: all backends and precisions in turns, then each in a fresh process."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.networks import color_spec, noise_image
from benchmarks.peers_bundles import Entry, Index
from benchmarks.turns import in_turns
from deploy.backends.auto import installed
from deploy.backends.cpu import engine_of, open_cpu
from deploy.backends.engine import CPU_MODELS
from deploy.backends.setting import BF16, Setting, computes_bf16
from deploy.latency.latency import cold_start

PRECISIONS = ("fp32", "int8")
TURN = 0.03
"""Seconds of one turn; a slow network runs once in it."""


@dataclass(frozen=True)
class Row:
    """One network as measured."""

    name: str
    parameters: int
    macs: int
    bytes: Mapping[str, int]
    """Size of the ONNX file by precision."""
    ms: Mapping[str, float]
    """One inference by backend and precision, such as "openvino int8": the median, or another quantile."""
    p90: Mapping[str, float]
    first_result_s: Mapping[str, float]
    """Seconds from the start of a fresh process to its first labels, in the faster backend of each precision."""
    peak_rss_bytes: Mapping[str, int]
    """Peak memory of that process."""

    def best(self, precision: str = "") -> float:
        """Milliseconds on the network's faster backend, in a precision or, without one, in the fastest."""
        return self.ms[self.fastest(precision)]

    def fastest(self, precision: str = "") -> str:
        """The fastest backend and precision, such as "openvino int8": in a precision or, without one, of all."""
        return min((form for form in self.ms if form.endswith(precision)), key=self.ms.__getitem__)


Form = tuple[str, str]
"""A network's name, and the backend and precision that run it, such as "openvino int8"."""


def measure(
    index: Index, folder: Path, rounds: int, cold: bool, threads: int | None = None, quantile: float = 0.5
) -> list[Row]:
    """Time the bundles of a folder.

    Args:
        index: what to time of it.
        folder: the folder.
        rounds: turns of each network, backend and precision.
        cold: also start each network in a fresh process, in the faster backend of each precision.
        threads: of the engines; None: their own choice.
        quantile: of the milliseconds that `Row.ms` reports; a low one is little disturbed by other load.
    """
    image = noise_image(color_spec(index.size), 0)
    opened = engine_of if index.alone else open_cpu  # alone, labels have the stride of the scores
    calls = {
        (entry.name, setting.name): partial(opened(folder / entry.bundle, setting).run, image[None])
        for entry in index.networks
        for setting in settings(threads)
    }
    times = in_turns(calls, rounds, seconds=TURN)
    calls.clear()  # the engines' threads and memory, before the fresh processes
    rows = [_row(entry, folder / entry.bundle, times, quantile) for entry in index.networks]
    if not cold:
        return rows
    return [
        _started(row, folder / entry.bundle, image) for row, entry in zip(rows, index.networks, strict=True)
    ]


def settings(threads: int | None = None) -> list[Setting]:
    """The backends and precisions of this machine: fp32 and INT8 on all, bf16 where CPU and OpenVINO have it."""
    backends = installed()
    found = [Setting(backend, precision, threads) for precision in PRECISIONS for backend in backends]
    if "openvino" in backends and computes_bf16():
        found.append(Setting("openvino", BF16, threads))
    return found


def _row(entry: Entry, bundle: Path, times: Mapping[Form, Sequence[float]], quantile: float) -> Row:
    own = {form: values for (name, form), values in times.items() if name == entry.name}
    ms, p90 = ({form: float(np.quantile(v, q)) for form, v in own.items()} for q in (quantile, 0.9))
    sizes = {precision: (bundle / CPU_MODELS[precision]).stat().st_size for precision in PRECISIONS}
    return Row(entry.name, entry.parameters, entry.macs, sizes, ms, p90, {}, {})


def _started(row: Row, bundle: Path, image: np.ndarray) -> Row:
    starts = {}
    for precision in PRECISIONS:
        backend = row.fastest(precision).split()[0]
        starts[precision] = cold_start(bundle, image, backend, precision=precision)
    first = {precision: start.first_result_s for precision, start in starts.items()}
    memory = {precision: start.peak_rss_bytes for precision, start in starts.items()}
    return Row(**{**asdict(row), "first_result_s": first, "peak_rss_bytes": memory})
