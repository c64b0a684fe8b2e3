"""What does rewriting a network gain? `python benchmarks/folding.py [forms] [must-hold] [--json FILE]`.

`forms` times each network before and after: pyramids folded into heads, branches and batch norms into convolutions,
convolutions of concatenations split into sums. `must-hold` times PSPNet-ResNet50 in torch and in INT8 on its best
backend, and compares the operations that `edge` students do in a second with the most that the machine was seen to do
in large dense INT8 convolutions. Everything is untrained and measured in turns.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start at the repository, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.turns import calls_of, in_turns
from deploy.backends.auto import installed
from deploy.errors import exit_with_one_line
from deploy.files.atomic import write_json
from deploy.measure import machine
from deploy.table import format_table, int8_notes_by_backend

PARTS = ("forms", "must-hold")
FOLDED = ("pspnet/resnet50", "pspnet/resnet18", "edge-small")
"""Networks that `student.device.folded` rewrites."""
SPLIT = ("deeplabv3plus/mobilenetv2_100", "unet")
"""Networks with convolutions of concatenations."""
EDGES = ("edge-nano", "edge-small", "edge-medium")
SHAPES = ((64, 3, 4), (128, 3, 4), (256, 3, 8), (512, 3, 16), (1024, 1, 8))
"""Channels, kernel and stride of the dense layers that measure the machine at 320×320; the last is a matrix product."""
SHORT, LONG = 2, 8
"""Layers of the two chains whose difference in time is that of the layers alone."""

Calls = dict[tuple[str, ...], Callable[[], object]]


def main(argv: Sequence[str]) -> int:
    """Measure, print the tables and write the JSON."""
    options = _parser().parse_args(argv)
    about = machine.describe()
    print(machine.summary(about))
    results: dict[str, object] = {"machine": about}
    for part in options.parts or PARTS:
        results[part] = {"forms": forms, "must-hold": must_hold}[part](options.runs)
    if options.json:
        write_json(options.json, results)
    return 0


def forms(runs: int, size: int = 320, classes: int = 11) -> dict[str, float]:
    """Time networks before and after rewriting; returns milliseconds by network, form, backend and precision."""
    from benchmarks.folding_networks import split
    from benchmarks.networks import Candidate, color_spec, models_of, network_of, settled

    spec, calls = color_spec(size), Calls()
    for name in (*FOLDED, *SPLIT):
        for after in (False, True):
            network = settled(network_of(name, classes))
            if name in SPLIT and after:
                network = split(network)
            models = models_of(Candidate(name, network), spec, fold=after or name in SPLIT)
            calls |= _calls((name, "after" if after else "before"), models, size)
    found = timed(calls, runs)
    columns = sorted({key[2:] for key in found})
    rows = []
    for name in (*FOLDED, *SPLIT):
        for form in ("before", "after"):
            times = [f"{found[(name, form, *column)]:.2f}" for column in columns]
            rows.append((f"{name} {form}", *times))
    header = ("network", *(" ".join(column) for column in columns))
    print(format_table(header, rows), *int8_notes_by_backend(_as_noted(found)), sep="\n")
    return {" ".join(key): ms for key, ms in found.items()}


def _as_noted(found: Mapping[tuple[str, ...], float]) -> dict[tuple[str, str, str], float]:
    """Milliseconds as `int8_notes_by_backend` takes them."""
    return {(f"{name} {form}", backend, kind): ms for (name, form, backend, kind), ms in found.items()}


def must_hold(runs: int) -> dict[str, float]:
    """Time PSPNet-ResNet50 against torch, and `edge` against the machine's integer peak."""
    ratio = against_torch(runs)
    return {"torch / int8 folded": ratio} | shares_of_peak(runs)


def against_torch(runs: int, size: int = 304, classes: int = 6) -> float:
    """How many times faster than eager torch PSPNet-ResNet50 at output stride 8 is in INT8 on its best backend."""
    from benchmarks.folding_networks import eager
    from benchmarks.networks import Candidate, color_spec, models_of, network_of, noise_image, settled

    network = settled(network_of("pspnet/resnet50", classes))
    spec = color_spec(size)
    calls = _calls(("pspnet/resnet50",), {"int8": models_of(Candidate("", network), spec)["int8"]}, size)
    calls["torch", "eager", "fp32"] = eager(network, noise_image(spec, 0))
    found = timed(calls, runs)
    torch_ms = found.pop(("torch", "eager", "fp32"))
    best = min(found.values())
    listed = ", ".join(f"{' '.join(key[1:])} {ms:.0f} ms" for key, ms in found.items())
    print(f"PSPNet-ResNet50, {size}×{size}: torch {torch_ms:.0f} ms, {listed}: {torch_ms / best:.2f}× faster")
    return torch_ms / best


def shares_of_peak(runs: int, size: int = 320, classes: int = 11) -> dict[str, float]:
    """Operations per second of `edge` students in INT8, as shares of the most seen in dense layers on the backend."""
    from benchmarks.folding_networks import Chain
    from benchmarks.networks import Candidate, color_spec, models_of, network_of, settled
    from student.device import folded
    from student.zoo import count_macs

    spec, calls, macs = color_spec(size), Calls(), dict[str, int]()
    for shape in SHAPES:
        for count in (SHORT, LONG):
            models = models_of(Candidate("", Chain(*shape, count).eval()), spec)
            calls |= _calls((f"{shape}", f"{count}"), {"int8": models["int8"]}, size)
    for name in EDGES:
        network = settled(network_of(name, classes))
        macs[name] = count_macs(folded(network), 3, (size, size))
        calls |= _calls((name, ""), {"int8": models_of(Candidate(name, network), spec)["int8"]}, size)
    found, shares = timed(calls, runs), dict[str, float]()
    for backend in installed():
        speeds = dict[tuple[int, int, int], float]()
        for channels, kernel, stride in SHAPES:
            own = [found[f"{(channels, kernel, stride)}", f"{n}", backend, "int8"] for n in (SHORT, LONG)]
            layer = (channels * kernel * size // stride) ** 2
            speeds[channels, kernel, stride] = (LONG - SHORT) * layer / (own[1] - own[0]) / 1e9  # ms → TMAC/s
        peak = max(speeds.values())
        listed = ", ".join(f"{c} channels {k}×{k} {2 * speed:.2f}" for (c, k, _), speed in speeds.items())
        print(f"{backend}: dense INT8 layers reach {2 * peak:.2f} TOPS ({listed})")
        for name in EDGES:
            ms = found[name, "", backend, "int8"]
            shares[f"{name} {backend}"] = macs[name] / ms / 1e9 / peak
            print(f"  {name} {ms:.2f} ms, {100 * shares[f'{name} {backend}']:.0f} % of that")
    return shares


def timed(calls: Calls, runs: int) -> dict[tuple[str, ...], float]:
    """Median milliseconds of calls that take turns."""
    return {key: statistics.median(own) for key, own in in_turns(calls, runs).items()}


def _calls(key: tuple[str, ...], models: Mapping[str, bytes], size: int) -> Calls:
    """Calls of the engines of all backends for one image of noise."""
    from benchmarks.networks import color_spec, noise_image

    return {(*key, *form): call for form, call in calls_of(models, noise_image(color_spec(size), 0)).items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/folding.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("parts", nargs="*", choices=PARTS, help="what to measure (both)")
    parser.add_argument("--runs", type=int, default=30, help="measured inferences of each (30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
