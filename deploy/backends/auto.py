"""What `auto` chooses: the fastest TensorRT engine that fits this machine, else the fastest way to run on the CPU.

Engines are measured by `deploy.backends.auto_gpu`. On the CPU every backend is measured once in every precision that
passed its gate (`deploy.backends.proof`), then with other numbers of threads (`deploy.backends.race`). The choice is
remembered (`deploy.backends.choice`) for this machine, these packages and these settings. INT8 is not taken for its
name: on CPUs without VNNI it may be slower than fp32.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from deploy import host
from deploy.backends import race
from deploy.backends.blobs import blob_file, keep_blob, read_blob
from deploy.backends.choice import Choice, can_remember, key, recall, remember
from deploy.backends.cpu import open_cpu
from deploy.backends.engine import CPU, ORT_GPU, TENSORRT, Engine, cpu_precision
from deploy.backends.gpu_options import DEFAULT, GpuOptions
from deploy.backends.openvino_cpu import OvEngine
from deploy.backends.proof import may_measure
from deploy.backends.race import Golden
from deploy.backends.setting import BF16, Setting, computes_bf16, variants
from deploy.backends.tensorrt_gpu import cuda
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import SUFFIX, engines_folder, list_engines
from deploy.bundle.manifest import GOLDEN, Manifest
from deploy.errors import UserError, warn, warn_once


def open_best(folder: Path, threads: int | None, precision: str, gpu: GpuOptions = DEFAULT) -> Engine:
    """Open what `auto` chooses; arguments and errors are those of `deploy.backends.open.open_engine`.

    A TensorRT engine that exists but cannot be used is skipped with a warning that says why.
    """
    damaged: list[str] = []
    if backends := tensorrt_here(folder, precision, damaged, gpu.device):
        from deploy.backends.auto_gpu import open_fastest  # start-up time: most devices have no GPU

        if engine := open_fastest(folder, backends, precision, gpu):
            return engine
    for reason in damaged[:1]:
        warn(f"{reason}; running on the CPU")
    return open_best_cpu(folder, threads, precision)


def open_or_fall_back(
    folder: Path, backend: str, threads: int | None, precision: str, gpu: GpuOptions
) -> Engine:
    """Open the backend of a GPU or, with a warning that says why, the fastest CPU backend instead."""
    # start-up time: most devices have no GPU
    from deploy.backends.onnxruntime_gpu import open_ort_gpu
    from deploy.backends.tensorrt_gpu.engine import open_trt

    try:
        if backend in ORT_GPU:
            return open_ort_gpu(folder, backend, precision, threads, gpu)
        return open_trt(folder, backend, precision, options=gpu)
    except UserError as refusal:
        warn(f"{refusal}; running on the CPU instead, as asked")
        return open_best_cpu(folder, threads, precision)


def tensorrt_here(
    folder: Path, precision: str, damaged: list[str] | None = None, device: int = 0
) -> list[str]:
    """List the TensorRT backends that the bundle has an engine for; none, with a warning, where no GPU can be used.

    The GPU is looked for only if the bundle has an engine.

    Args:
        folder: folder of the bundle.
        precision: one of `deploy.backends.engine.PRECISIONS`.
        damaged: a list to which the reasons are added why sidecars cannot be read; their engines are left out.
        device: number of the GPU.
    """
    if not any(engines_folder(folder).glob(f"*{SUFFIX}")):
        return []
    wanted = None if precision == "auto" else precision
    refusals = [] if damaged is None else damaged
    found = [backend for backend in TENSORRT if list_engines(folder, backend, wanted, refusals)]
    if found and (why := cuda.why_not(device)):
        warn_once(
            f"{folder}: no usable NVIDIA GPU for its engine ({why}); running on the CPU"
            f" (backend {CPU[0]!r} does so without this warning)"
        )
        return []
    return found


def open_best_cpu(folder: Path, threads: int | None, precision: str) -> Engine:
    """Open the network in the way that is fastest on this CPU and right, measured once if there are several.

    A backend that cannot open the model is skipped with a warning.

    Raises:
        UserError: no backend is installed, none can open the model, or the bundle lacks the precision.
    """
    manifest, backends = read_manifest(folder), installed()
    settings = candidates(folder, manifest, backends, threads, precision)
    wanted = key(backends, threads, precision)
    known = remembered(folder, manifest, settings, wanted)
    if known is not None:
        try:
            return open_cpu(folder, known.setting, read_blob(blob_file(manifest, wanted, known.setting)))
        except UserError as error:
            warn(f"{error}; choosing again")
    engines = _open_all(folder, settings)
    tune = can_remember(folder) and len(engines) == len(settings)  # a backend that failed may be repaired
    if len(engines) == 1 and not (tune and variants(settings[0])):
        return next(iter(engines.values()))
    choice, engine = choose(folder, engines, race.read_golden_of(folder, manifest), tune)
    if len(engines) == len(settings):
        remember(folder, manifest, wanted, choice)
        if isinstance(engine, OvEngine) and can_remember(folder):
            keep_blob(blob_file(manifest, wanted, choice.setting), engine.export())
    return engine


def installed() -> list[str]:
    """List the CPU backends of this installation without importing them; `UserError` if there are none."""
    found = [name for name in CPU if find_spec(name)]
    if not found:
        raise UserError(f"no backend is installed; pip install {CPU[0]}")
    return found


def candidates(
    folder: Path, manifest: Manifest, backends: Sequence[str], threads: int | None, precision: str
) -> list[Setting]:
    """The settings that are measured for a precision, with the default number of threads.

    For "auto": fp32, INT8 and, where the CPU has it, bf16, as far as they are known to be right.

    Raises:
        UserError: the bundle lacks the precision.
    """
    if precision != "auto":
        return [Setting(backend, cpu_precision(folder, precision), threads) for backend in backends]
    every = [Setting(backend, one, threads) for backend in backends for one in ("int8", "fp32")]
    if "openvino" in backends and computes_bf16():
        every.append(Setting("openvino", BF16, threads))
    found = [setting for setting in every if may_measure(folder, manifest, setting)]
    return found or [Setting(backends[0], "fp32", threads)]


def remembered(folder: Path, manifest: Manifest, settings: Iterable[Setting], wanted: str) -> Choice | None:
    """The choice that is remembered under a key, if it is still one of those that would be measured."""
    known = recall(folder, manifest, wanted)
    fits = known is not None and any(known.setting in (one, *variants(one)) for one in settings)
    return known if fits else None


def files_to_open(folder: Path, manifest: Manifest, threads: int | None, precision: str) -> set[str]:
    """Names of the bundle's files that `open_best_cpu` will read.

    Raises:
        UserError: as `open_best_cpu` does.
    """
    backends = installed()
    settings = candidates(folder, manifest, backends, threads, precision)
    known = remembered(folder, manifest, settings, key(backends, threads, precision))
    if known is not None:
        return {known.setting.file(folder).name}
    return {GOLDEN, *(setting.file(folder).name for setting in settings)}


def choose(
    folder: Path, engines: Mapping[Setting, Engine], golden: Golden, tune: bool
) -> tuple[Choice, Engine]:
    """Measure engines of a bundle in turns and choose the fastest that is right, within some seconds.

    Args:
        folder: the bundle.
        engines: the engines to compare.
        golden: what they run on, and the labels that are right.
        tune: whether to try other numbers of threads for the fastest.

    Returns:
        The choice, and its engine.
    """
    agreements = {setting: golden.agreement(engine) for setting, engine in engines.items()}
    image = golden.inputs[:1]
    times = race.time_in_turns(engines, image, race.SECONDS)
    good = race.right(read_manifest(folder), agreements)
    finalists = {setting: engines[setting] for setting in race.contenders({one: times[one] for one in good})}
    chosen = next(iter(finalists))
    more = [one for setting in finalists for one in variants(setting)] if tune else []
    if more := race.affordable(more, times[chosen], len(finalists)):
        finalists |= race.open_within(more, lambda one: open_cpu(folder, one), race.SECONDS)
        for engine in finalists.values():
            engine.run(image)  # to warm up
        final = race.time_in_turns(finalists, image, race.SECONDS)
        chosen = race.most_frugal(final, host.physical_cores())
        times |= final
    shares = {setting.name: share for setting, share in agreements.items() if share is not None}
    return Choice(chosen, {str(one): ms for one, ms in times.items()}, shares), finalists[chosen]


def _open_all(folder: Path, settings: Iterable[Setting]) -> dict[Setting, Engine]:
    engines: dict[Setting, Engine] = {}
    errors: list[UserError] = []
    for setting in settings:
        try:
            engines[setting] = open_cpu(folder, setting)
        except UserError as error:
            errors.append(error)
    if not engines:
        raise errors[0]
    for reason in dict.fromkeys(map(str, errors)):
        warn(f"{reason}; running without it")
    return engines
