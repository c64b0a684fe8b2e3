"""What `auto` chooses: a TensorRT engine that fits this machine, else the fastest CPU backend, measured once.

The choice is stored in the bundle's folder `engines/`, for this machine, these versions and these settings. It is not
part of the bundle: where it cannot be read or written, `auto` measures again.
"""

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import numpy as np

from deploy import host
from deploy.backends.cpu import open_cpu
from deploy.backends.engine import CPU, TENSORRT, Engine, cpu_precision
from deploy.backends.tensorrt_gpu import cuda
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import SUFFIX, engines_folder, list_engines
from deploy.bundle.manifest import GOLDEN, Manifest
from deploy.errors import UserError, warn
from deploy.files.atomic import write_json

FILE = "auto.json"
SECONDS = 1.0
"""About how long to measure, not counting the warm-up runs."""
BLOCK, BLOCKS = 3, 7
"""Consecutive runs of a backend in one turn, and turns of each; fewer when the time is up."""
TOLERANCE = 0.02
"""Share of the golden labels by which a backend may be worse than the best and still be chosen for its speed."""


class Choice(msgspec.Struct, frozen=True):
    """The chosen backend, and the measurements behind the choice."""

    backend: str
    milliseconds: dict[str, float]
    """Median time of one inference, by backend."""
    agreement: dict[str, float]
    """Share of the golden labels that each backend reproduced; 1 where there are none."""


class Choices(msgspec.Struct, frozen=True):
    """`auto.json`."""

    bundle: str
    """Digest of the manifest that the choices are for."""
    choices: dict[str, Choice] = {}
    """Choices by everything else that they depend on, in words."""


def open_best(folder: Path, threads: int | None, precision: str) -> Engine:
    """Open what `auto` chooses; arguments and errors are those of `deploy.backends.open.open_engine`.

    A TensorRT engine that exists but cannot be used is skipped with a warning that says why.
    """
    damaged: list[str] = []
    for backend in tensorrt_here(folder, precision, damaged):
        from deploy.backends.tensorrt_gpu.engine import open_trt  # start-up time: most devices have no GPU

        try:
            return open_trt(folder, backend, precision)
        except UserError as refusal:
            warn(f"{refusal}; running without it")
    for reason in damaged[:1]:
        warn(f"{reason}; running on the CPU")
    return open_best_cpu(folder, threads, precision)


def open_or_fall_back(folder: Path, backend: str, threads: int | None, precision: str) -> Engine:
    """Open a TensorRT backend or, with a warning that says why, the fastest CPU backend instead."""
    from deploy.backends.tensorrt_gpu.engine import open_trt  # start-up time: most devices have no GPU

    try:
        return open_trt(folder, backend, precision)
    except UserError as refusal:
        warn(f"{refusal}; running on the CPU instead, as asked")
        return open_best_cpu(folder, threads, precision)


def tensorrt_here(folder: Path, precision: str, damaged: list[str] | None = None) -> list[str]:
    """List the TensorRT backends that the bundle has an engine for; none on a machine without a GPU.

    The GPU is probed only if the bundle has an engine.

    Args:
        folder: folder of the bundle.
        precision: one of `deploy.backends.engine.PRECISIONS`.
        damaged: a list to which the reasons are added why sidecars cannot be read; their engines are left out.
    """
    if not any(engines_folder(folder).glob(f"*{SUFFIX}")) or cuda.probe() is None:
        return []
    wanted = None if precision == "auto" else precision
    refusals = [] if damaged is None else damaged
    return [backend for backend in TENSORRT if list_engines(folder, backend, wanted, refusals)]


def open_best_cpu(folder: Path, threads: int | None, precision: str) -> Engine:
    """Open the network on the CPU backend that is fastest here, measured once if several are installed.

    A backend that cannot open the model is skipped with a warning.

    Raises:
        UserError: no backend is installed, none can open the model, or the bundle lacks the precision.
    """
    precision = cpu_precision(folder, precision)
    backends = installed()
    if len(backends) == 1:
        return open_cpu(folder, backends[0], threads, precision)
    manifest, path = read_manifest(folder), engines_folder(folder) / FILE
    key = _key(backends, threads, precision)
    known = _read(path, manifest.digest).choices.get(key)
    if known and known.backend in backends:
        try:
            return open_cpu(folder, known.backend, threads, precision)
        except UserError as error:
            warn(f"{error}; choosing again")
    engines = _open_all(folder, backends, threads, precision)
    if len(engines) > 1:
        choice = measure(engines, *_example(folder, manifest))
        _remember(path, manifest.digest, key, choice)
        return engines[choice.backend]
    return next(iter(engines.values()))


def installed() -> list[str]:
    """List the CPU backends of this installation without importing them; `UserError` if there are none."""
    found = [name for name in CPU if find_spec(name)]
    if not found:
        raise UserError(f"no backend is installed; pip install {CPU[0]}")
    return found


def measure(engines: Mapping[str, Engine], batch: np.ndarray, labels: np.ndarray | None) -> Choice:
    """Run the engines in turns for about a second and choose the one with the smallest median time.

    An engine whose labels are wrong is not chosen: some CPUs overflow in INT8.

    Args:
        engines: the engines to compare, by backend.
        batch: input of one image.
        labels: the labels that are correct for it; None: unknown.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    agreement = {}
    for name, engine in engines.items():
        given = engine.run(batch)["labels"]  # warm-up: the first run is slower than the others
        agreement[name] = 1.0 if labels is None else float(np.mean(given == labels))
    end = time.perf_counter() + SECONDS
    for _ in range(BLOCKS):
        for name, engine in engines.items():
            engine.run(batch)  # not counted: the threads of the other engine go to sleep during it
            for _ in range(BLOCK):
                start = time.perf_counter()
                engine.run(batch)
                times[name].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
        if time.perf_counter() > end:
            break
    milliseconds = {name: 1000 * float(np.median(values)) for name, values in times.items()}
    right = [name for name in engines if agreement[name] >= max(agreement.values()) - TOLERANCE]
    return Choice(min(right, key=milliseconds.__getitem__), milliseconds, agreement)


def _open_all(
    folder: Path, backends: Sequence[str], threads: int | None, precision: str
) -> dict[str, Engine]:
    engines: dict[str, Engine] = {}
    errors: list[UserError] = []
    for backend in backends:
        try:
            engines[backend] = open_cpu(folder, backend, threads, precision)
        except UserError as error:
            errors.append(error)
    if not engines:
        raise errors[0]
    for error in errors:
        warn(f"{error}; running without it")
    return engines


def _example(folder: Path, manifest: Manifest) -> tuple[np.ndarray, np.ndarray | None]:
    """A golden input of one image and its labels; zeros and no labels if no golden file fits."""
    spec = manifest.input
    size, channels = (spec.height, spec.width), len(spec.channels)
    zeros = np.zeros((1, *size, channels) if spec.layout == "NHWC" else (1, channels, *size), spec.dtype)
    try:
        with open(folder / GOLDEN, "rb") as file, np.load(file, allow_pickle=False) as golden:
            batch, labels = golden["inputs"][:1], golden["labels"][:1]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return zeros, None
    fits = (batch.shape, batch.dtype) == (zeros.shape, zeros.dtype) and labels.shape == (1, *size)
    return (batch, labels) if fits else (zeros, None)


def _key(backends: Sequence[str], threads: int | None, precision: str) -> str:
    """Everything that the speed depends on, apart from the model."""
    from importlib.metadata import PackageNotFoundError, version  # start-up time: only for several backends

    def versioned(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:  # a build under another name, such as onnxruntime-gpu
            return name

    # A virtual machine may lack features of its CPU model.
    flags = hashlib.sha256(" ".join(sorted(host.cpu_flags())).encode()).hexdigest()[:8]
    quota = f" of which {share:g} at a time" if (share := host.cpu_quota()) else ""
    name = host.device() or host.cpu_name()
    machine = f"{name} {platform.machine()} ({flags}), {host.usable_cores()} cores{quota}"
    return ", ".join([precision, f"threads {threads or 'auto'}", machine, *map(versioned, backends)])


def _read(path: Path, bundle: str) -> Choices:
    """The stored choices for this bundle; none where the file is missing, damaged, or for another bundle."""
    try:
        choices = msgspec.json.decode(path.read_bytes(), type=Choices)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Choices(bundle)
    return choices if choices.bundle == bundle else Choices(bundle)


def _remember(path: Path, bundle: str, key: str, choice: Choice) -> None:
    # If two processes do this at once, one may lose its entry and measure again later.
    choices = _read(path, bundle).choices | {key: choice}
    with suppress(UserError, OSError):  # in a read-only folder the choice lasts for this process only
        write_json(path, Choices(bundle, choices))
