"""Build engines for TensorRT 10 and 11 and TensorRT-RTX from a bundle's ONNX, and keep them in its `engines/`."""

import hashlib
import platform
import sys
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from deploy.backends.core import CORE
from deploy.backends.engine import TENSORRT_MODELS
from deploy.backends.tensorrt_gpu import cuda, dla
from deploy.backends.tensorrt_gpu.compatibility import full_name
from deploy.backends.tensorrt_gpu.compile import Compiled, compile_network, name_of, write_timing_cache
from deploy.backends.tensorrt_gpu.cuda_interface import Cuda, Device
from deploy.backends.tensorrt_gpu.errors import Unexplained
from deploy.backends.tensorrt_gpu.kept import check_writable, kept
from deploy.backends.tensorrt_gpu.layer_report import HEADING, summary, table
from deploy.backends.tensorrt_gpu.log import INFO, LATEST, Message, listen
from deploy.backends.tensorrt_gpu.options import CURRENT, BuildOptions, resolve_targets
from deploy.backends.tensorrt_gpu.packages import check_cuda_major, import_tensorrt
from deploy.backends.tensorrt_gpu.progress import Progress, run_cancellable
from deploy.backends.tensorrt_gpu.signs import look
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import (
    SUFFIX,
    LayerSummary,
    Sidecar,
    engines_folder,
    read_sidecar,
    write_engine,
)
from deploy.errors import UserError, warn
from deploy.files.atomic import atomic_write
from deploy.signing.trust_store import trust

__all__ = ["BuildOptions", "Built", "build_engine"]

TF32 = "in TF32 on GPUs from Ampere on (--no-tf32: in full float32)"

_one_at_a_time = threading.Lock()  # concurrent builds would receive each other's messages


class Say(Protocol):
    """A function that shows a line to the user."""

    def __call__(self, text: str, /) -> object:
        """Show a line."""
        ...


@dataclass(frozen=True)
class Built:
    """An engine of a bundle."""

    path: Path
    sidecar: Sidecar
    reused: bool
    """Whether it was built earlier, from the same model, for the same device, with the same options and TensorRT."""
    log: Path
    """The fused layers and the builder's messages (of verbose ones the latest), from when it was built."""


def build_engine(
    bundle: Path, options: BuildOptions, *, core: bytes | None = None, progress: bool = True, say: Say = print
) -> Built:
    """Compile a bundle's model, unless that was done before, and keep the engine in its folder `engines/`.

    Only the finished engine, its sidecar and its log are written there; if TensorRT fails for an unknown reason, only
    the log.

    Args:
        bundle: folder of the bundle.
        options: how to build.
        core: for a DLA alone, the core of the model (`deploy.lint.dla_alone`), which is compiled instead of it.
        progress: draw a progress bar on stderr, if that is a terminal.
        say: shows lines to the user.

    Raises:
        UserError: no such bundle or precision, no TensorRT, no GPU where one is needed, a model that is damaged or
            that TensorRT refuses, an option that is not available here, a full disk.
        KeyboardInterrupt: the user stopped it.
    """
    bundle, source = Path(bundle), TENSORRT_MODELS[options.precision]
    model, checksum = _model(bundle, source, options)
    trt, targets, gpu = check_machine(options)
    sidecar = _sidecar(trt, source, checksum, options, targets, gpu.device if gpu else None, core)
    name = f"{options.backend}-{options.precision}-b{options.batch[2]}-{sidecar.key[:8]}"
    path = engines_folder(bundle) / f"{name}{SUFFIX}"
    log = path.with_suffix(".log")
    if earlier := kept(path, sidecar.key, say):
        with suppress(OSError):  # in a folder that cannot be written
            path.touch()  # of several equal engines the newest is used
        say(f"{path}: built before from the same model, options and versions; used again")
        return Built(path, earlier, True, log)

    check_writable(path.parent)
    where = sidecar.gpu if CURRENT in targets else ", ".join(targets)
    what = f"the core of {source}" if core else source
    said_tf32 = f", {TF32}" if options.precision == "fp32" and options.tf32 else ""
    say(f"{name_of(trt, options)}: compiling {what} for {where}, batch {_batch(options)}{said_tf32}")
    bar = Progress(sys.stderr if progress and sys.stderr.isatty() else None)
    compiled, said = _compile(trt, core or model, bundle / source, options, targets, log, bar, gpu, say)
    sidecar = _write(bundle, name, compiled, sidecar, said)
    _trust(path, compiled.plan, say)
    if options.timing_cache and compiled.timing_cache:
        write_timing_cache(options.timing_cache, compiled.timing_cache)
    say(f"{path}: built in {compiled.seconds:.1f} s, {sidecar.bytes / 1e6:.1f} MB")
    _tell_layers(compiled, say)
    return Built(path, sidecar, False, log)


def _tell_layers(compiled: Compiled, say: Say) -> None:
    if compiled.layers:
        say(table(compiled.layers))
    if compiled.dla:
        say(dla.words(compiled.dla))


def check_machine(options: BuildOptions) -> tuple[Any, tuple[str, ...], Cuda | None]:
    """Check what a build needs of this machine.

    Returns:
        TensorRT's module, the compute capabilities to compile for, and this machine's GPU if it matters.

    Raises:
        UserError: a package or GPU is missing, or a target does not exist.
    """
    # Without a driver TensorRT may crash instead of raising an error, so the GPU is probed before it is imported.
    gpu = None if options.targets and CURRENT not in options.targets else cuda.find(options.device)
    if options.backend == "tensorrt" and gpu is None:
        raise UserError(
            f"backend tensorrt: no usable NVIDIA GPU ({cuda.why_not(options.device)}); build on the device, or ahead of"
            " time with --backend tensorrt-rtx"
        )
    if gpu is not None:
        check_cuda_major(options.backend, gpu.device)
    elif not options.targets and look().any:
        warn(
            f"no usable NVIDIA GPU ({cuda.why_not(options.device)}); compiling for all GPUs instead of this one"
        )
    trt = import_tensorrt(options.backend)
    return trt, resolve_targets(trt, options, gpu is not None), gpu


def _model(bundle: Path, source: str, options: BuildOptions) -> tuple[bytes, str]:
    """The bytes of the bundle's ONNX and their SHA-256, checked against the manifest."""
    manifest = read_manifest(bundle)
    path = bundle / source
    if source not in manifest.files or not path.is_file():
        remedy = (
            "copy the whole folder again"
            if source in manifest.files
            else f"make it: edgedistill build {bundle} --precision {options.precision}"
        )
        raise UserError(f"{path}: the bundle has no {options.precision} model; {remedy}")
    model = path.read_bytes()
    checksum = hashlib.sha256(model).hexdigest()
    if checksum != manifest.files[source].sha256:
        raise UserError(
            f"{path}: differs from the exported file (checksum mismatch); copy the whole folder again"
        )
    return model, checksum


def _sidecar(
    trt: Any,
    source: str,
    checksum: str,
    options: BuildOptions,
    targets: tuple[str, ...],
    device: Device | None,
    core: bytes | None,
) -> Sidecar:
    """The sidecar as far as it is known before the build, with the key of everything that determines the engine."""
    here = device if CURRENT in targets else None
    sidecar = Sidecar(
        source=source,
        source_sha256=checksum,
        sha256="",
        bytes=0,
        backend=options.backend,
        version=trt.__version__,
        precision=options.precision,
        gpu=full_name(here) if here else "",
        compute_capability=here.compute_capability if here else "",
        targets=() if here else targets,
        os=platform.system(),
        architecture=platform.machine(),
        batch=options.batch,
        options=options.deciding() | ({CORE: hashlib.sha256(core).hexdigest()} if core else {}),
        key="",
        build_seconds=0.0,
    )
    decides = msgspec.json.encode(sidecar, order="sorted")
    return msgspec.structs.replace(sidecar, key=hashlib.sha256(decides).hexdigest())


def _trust(path: Path, plan: memoryview, say: Say) -> None:
    """Trust the engine just built: exactly these bytes, whatever lies at its path by now."""
    try:
        trust(hashlib.sha256(plan).hexdigest(), path, "built")
    except UserError as error:
        say(
            f"{error}; only this process trusts the engine: load it with trust_engines=True, or sign the bundle"
        )


def _compile(
    trt: Any,
    model: bytes,
    source: Path,
    options: BuildOptions,
    targets: tuple[str, ...],
    log: Path,
    bar: Progress,
    gpu: Cuda | None,
    say: Say,
) -> tuple[Compiled, str]:
    """The engine and the text of its log. After an unexplained failure the log is on disk, and the error names it."""

    def work(stop: threading.Event) -> Compiled:  # in a thread of its own
        with gpu.current() if gpu else nullcontext():
            return compile_network(trt, model, source, options, targets, messages, bar, stop)

    with _one_at_a_time, listen(trt, _worth_keeping, LATEST, say) as messages:
        try:
            compiled = run_cancellable(work)
        except Unexplained as error:
            _write_log(log, messages.as_text())
            raise UserError(f"{error}; the complete log is in {log}") from error
        finally:
            bar.close()
    told = f"{table(compiled.layers)}\n\n" if compiled.layers else ""
    return compiled, told + messages.as_text()


def _worth_keeping(message: Message) -> bool:
    """Whether a message of a build is needed; of the others, which are verbose, the latest go into the log."""
    return message.severity <= INFO or message.text.startswith((HEADING, *dla.LISTED))


def _write(bundle: Path, name: str, compiled: Compiled, sidecar: Sidecar, log: str) -> Sidecar:
    """Write log, engine and sidecar, or none of them; return the sidecar as written."""
    sidecar = msgspec.structs.replace(
        sidecar,
        build_seconds=round(compiled.seconds, 3),
        layers=_summary(compiled),
    )
    path = engines_folder(bundle) / f"{name}{SUFFIX}"
    try:
        _write_log(path.with_suffix(".log"), log)
        return read_sidecar(write_engine(bundle, name, compiled.plan, sidecar))
    except BaseException:
        for suffix in (SUFFIX, ".json", ".log"):
            with suppress(OSError):
                path.with_suffix(suffix).unlink()
        raise


def _summary(compiled: Compiled) -> LayerSummary | None:
    found = compiled.layers and summary(compiled.layers)
    return found and msgspec.structs.replace(found, dla=compiled.dla)


def _write_log(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def _batch(options: BuildOptions) -> str:
    least, best, most = options.batch
    return str(best) if least == most else f"{least} to {most}, best at {best}"
