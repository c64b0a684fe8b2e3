"""The fastest engine of a bundle on this GPU: measured, and remembered in the bundle's folder `engines/`.

An engine is not taken for its precision: an INT8 engine of a small network, or one with many conversions, may be slower
than FP16.
"""

from collections.abc import Sequence
from pathlib import Path

from deploy.backends import race
from deploy.backends.choice import Choice, recall, remember
from deploy.backends.engine import Engine
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.setting import Setting
from deploy.backends.tensorrt_gpu import cuda
from deploy.backends.tensorrt_gpu import engine as trt
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import Sidecar, list_engines
from deploy.errors import UserError, warn


def open_fastest(folder: Path, backends: Sequence[str], precision: str, gpu: GpuOptions) -> Engine | None:
    """Open the engine that is fastest on this GPU, of those that are right: one of each backend and precision.

    Args:
        folder: folder of the bundle.
        backends: the TensorRT backends to choose from.
        precision: one of `deploy.backends.engine.PRECISIONS`.
        gpu: GPU, trust, and how to run.

    Returns:
        None if no engine can be opened; a warning says why.
    """
    sidecars = _first(folder, backends, precision)
    manifest, wanted = read_manifest(folder), _key(sidecars, precision, gpu)
    known = recall(folder, manifest, wanted)
    if known is not None and known.setting in sidecars:
        sidecars = {known.setting: sidecars[known.setting]}
    engines = _open_all(folder, list(sidecars), gpu)
    if len(engines) < 2:
        return next(iter(engines.values()), None)
    golden = race.read_golden_of(folder, manifest)
    agreements = {setting: golden.agreement(engine) for setting, engine in engines.items()}
    times = race.time_in_turns(engines, golden.inputs[:1], race.SECONDS)
    chosen = min(race.right(manifest, agreements), key=times.__getitem__)
    for setting, engine in engines.items():
        if setting != chosen:
            engine.close()
    if len(engines) == len(sidecars):  # one that failed may be mended
        shares = {setting.name: share for setting, share in agreements.items() if share is not None}
        remember(
            folder, manifest, wanted, Choice(chosen, {str(one): ms for one, ms in times.items()}, shares)
        )
    return engines[chosen]


def _first(folder: Path, backends: Sequence[str], precision: str) -> dict[Setting, Sidecar]:
    """The engine of each backend and precision that is tried first, without those that failed their gate: a warning
    names them.
    """
    found: dict[Setting, Sidecar] = {}
    failed: dict[Setting, Path] = {}
    for backend in backends:
        for path, sidecar in list_engines(
            folder, backend, None if precision == "auto" else precision, refusals=[]
        ):
            setting = Setting(backend, sidecar.precision)
            if sidecar.passed is False:
                failed.setdefault(setting, path)
            else:
                found.setdefault(setting, sidecar)
    for setting, path in failed.items():
        if setting not in found:
            warn(f"{path}: failed its accuracy gate when it was built; running without it")
    return found


def _key(sidecars: dict[Setting, Sidecar], precision: str, gpu: GpuOptions) -> str:
    """Everything that the speed depends on apart from the model, in words: what was asked for, GPU, engines."""
    here = cuda.probe(gpu.device)
    name = f"{here.name} ({here.compute_capability})" if here else "no GPU"
    engines = [f"{setting.name} {sidecar.sha256[:16]}" for setting, sidecar in sidecars.items()]
    graph = ["CUDA graphs"] if gpu.cuda_graph else []
    return ", ".join([precision, name, *graph, *engines])


def _open_all(folder: Path, settings: Sequence[Setting], gpu: GpuOptions) -> dict[Setting, trt.TrtEngine]:
    """Open what can be opened. Why others cannot is a warning each, but a single one if none can."""
    engines: dict[Setting, trt.TrtEngine] = {}
    refusals: list[UserError] = []
    for setting in settings:
        try:
            engines[setting] = trt.open_trt(folder, setting.backend, setting.precision, options=gpu)
        except UserError as refusal:
            refusals.append(refusal)
    for refusal in refusals if engines else refusals[:1]:
        warn(f"{refusal}; running without it")
    return engines
