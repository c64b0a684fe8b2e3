"""Compile ONNX to an engine with TensorRT 10 or 11 or TensorRT-RTX: the calls into the library, and their order.

The ONNX defines the precision: networks are strongly typed, which TensorRT 10 has to be told; the others always do it.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.backends.core import CORE_OUTPUTS
from deploy.backends.engine import OUTPUTS
from deploy.backends.tensorrt_gpu import dla, inspector
from deploy.backends.tensorrt_gpu.errors import failure, not_quantized, refusal
from deploy.backends.tensorrt_gpu.inspector import inspect_plan
from deploy.backends.tensorrt_gpu.layer_report import HEADING, LayerReport, Work, operators, parse, summary
from deploy.backends.tensorrt_gpu.log import Message, logger
from deploy.backends.tensorrt_gpu.options import CURRENT, TURING, BuildOptions
from deploy.backends.tensorrt_gpu.progress import Progress, monitor
from deploy.bundle.engine_files import DlaLayers
from deploy.errors import UserError, warn
from deploy.files.atomic import atomic_write


@dataclass(frozen=True)
class Compiled:
    """An engine in memory."""

    plan: memoryview
    layers: LayerReport | None
    """None where the builder did not report them."""
    timing_cache: bytes | None
    """New content of the file `BuildOptions.timing_cache`."""
    seconds: float
    dla: DlaLayers | None = None
    """What runs on the DLA, if the engine is for one."""


def compile_network(
    trt: Any,
    model: bytes,
    source: Path,
    options: BuildOptions,
    targets: Sequence[str],
    messages: Sequence[Message],
    progress: Progress,
    stop: threading.Event,
) -> Compiled:
    """Compile the ONNX `model`, read from `source`, with the module `trt`.

    Args:
        targets: what `resolve_targets` returned.
        messages: a list that fills with what TensorRT logs (`log.listen`).
        stop: once set, the build ends soon.

    Raises:
        UserError: the model is not an ONNX file, TensorRT refuses it, or an option is not available on this machine.
        KeyboardInterrupt: `stop` was set.
    """
    check_onnx(model, source)
    start, title = time.perf_counter(), name_of(trt, options)
    builder = _create_builder(trt, messages, source, title)
    network = builder.create_network(_network_flags(trt, options))
    parser = trt.OnnxParser(network, logger(trt))
    if not parser.parse(model):
        raise refusal(parser, source, title)
    _check_network(network, source, CORE_OUTPUTS if options.dla_alone else OUTPUTS)
    works = operators(network)
    config = builder.create_builder_config()
    _configure(trt, builder, config, options, targets)
    _set_batch(builder, network, config, options.batch, source)
    placed = dla.place(config, network, options, source)
    cache = _timing_cache(config, options.timing_cache)
    watcher = monitor(trt, progress, stop)  # the name keeps it alive: TensorRT holds no reference
    config.progress_monitor = watcher
    plan = None if stop.is_set() else builder.build_serialized_network(network, config)
    if stop.is_set():
        raise KeyboardInterrupt
    if plan is None:
        raise _failed(trt, messages, source, options, targets)
    seconds = time.perf_counter() - start
    report = _read_layers(trt, memoryview(plan), messages, works, options)
    if error := not_quantized(report, source, targets, title, options.precision):
        raise error
    measured = bytes(config.get_timing_cache().serialize()) if cache else None
    return Compiled(memoryview(plan), report, measured, seconds, placed and dla.counted(placed, messages))


def _failed(
    trt: Any, messages: Sequence[Message], source: Path, options: BuildOptions, targets: Sequence[str]
) -> UserError:
    """Why the builder returned no engine; the next build is not affected."""
    error = failure(messages, source, options.workspace_mb, name_of(trt, options))
    if TURING in targets:
        _clear(trt)
    return error


def _read_layers(
    trt: Any, plan: memoryview, messages: Sequence[Message], works: Mapping[str, Work], options: BuildOptions
) -> LayerReport | None:
    """How the network was compiled, by the builder's log and, where there is a GPU, by the inspector of the engine.

    Neither form is documented. Where they disagree, or the log has an unknown form, a warning says so.
    """
    said = next((text for _, text in messages if text.startswith(HEADING)), "")
    report, title = parse(said, works), name_of(trt, options)
    found = inspect_plan(trt, plan, options) if options.backend == "tensorrt" else None
    witness = inspector.read_layers(found, works) if found else None
    if said and (report is None or report.unread):
        instead = "its inspector is believed instead" if witness else "so it is not known which run in INT8"
        warn(f"{title}: its log lists layers in a form that is not known here; {instead}")
        return witness or report
    if report and witness and _int8(report) != _int8(witness):
        counts = "{0[0]} of {0[1]} convolutions in INT8, its inspector {1[0]} of {1[1]}".format(
            _int8(report), _int8(witness)
        )
        warn(f"{title}: its log lists {counts}; the inspector is believed")
        return witness
    return report or witness


def _int8(report: LayerReport) -> tuple[int, int]:
    """Number of convolutions in INT8, and of all."""
    figures = summary(report)
    return figures.int8_convolutions, figures.convolutions


def name_of(trt: Any, options: BuildOptions) -> str:
    """TensorRT's name and version for messages."""
    return f"{'TensorRT' if options.backend == 'tensorrt' else 'TensorRT-RTX'} {trt.__version__}"


def check_onnx(model: bytes, source: Path) -> None:
    """Refuse what is not an ONNX file: TensorRT's parser reads an empty file, or a picture, as an empty network.

    Raises:
        UserError: the bytes are not those of an ONNX file.
    """
    if not model:
        raise UserError(f"{source}: is empty; copy or export the bundle again")
    # Protobuf field 1, `ModelProto.ir_version`: always written, and first.
    if model[:1] != b"\x08":
        raise UserError(f"{source}: is not an ONNX file; export the bundle again")


def _create_builder(trt: Any, messages: Sequence[Message], source: Path, title: str) -> Any:
    try:
        return trt.Builder(logger(trt))
    except (TypeError, RuntimeError) as error:  # raised for a null pointer from C++
        raise failure(messages, source, None, title) from error


def _clear(trt: Any) -> None:
    """Build a trivial network after a build for Turing failed.

    Otherwise TensorRT-RTX 1.7.1 usually compiles the next network of the process for Turing too, without INT8 and
    regardless of its targets: 67 of 80 times in a measurement, and 0 of 80 with this in between.
    """
    builder = trt.Builder(logger(trt))
    network = builder.create_network(0)
    tensor = network.add_input("x", trt.float32, (1,))
    network.mark_output(network.add_identity(tensor).get_output(0))
    builder.build_serialized_network(network, builder.create_builder_config())


def write_timing_cache(path: Path, data: bytes) -> None:
    """Save the measurements of a build for the next one."""
    with atomic_write(path) as file:
        file.write(data)


def _network_flags(trt: Any, options: BuildOptions) -> int:
    if options.backend == "tensorrt" and int(trt.__version__.split(".")[0]) < 11:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def _check_network(network: Any, source: Path, wanted: Sequence[str]) -> None:
    outputs = {network.get_output(index).name for index in range(network.num_outputs)}
    if not network.num_layers or not outputs:
        raise UserError(f"{source}: holds no network; copy or export the bundle again")
    if not outputs.issuperset(wanted):
        found, needed = ", ".join(sorted(outputs)), ", ".join(sorted(wanted))
        raise UserError(f"{source}: has outputs {found}, needs {needed}; export it with edgedistill")
    if network.num_inputs != 1:
        raise UserError(f"{source}: has {network.num_inputs} inputs instead of 1; export it with edgedistill")
    shape = tuple(network.get_input(0).shape)
    if len(shape) != 4 or min(shape[1:]) < 1:
        raise UserError(
            f"{source}: reads {'×'.join(map(str, shape))} (-1 varies); only the batch of an image may vary;"
            " export the bundle again"
        )


def _set_batch(builder: Any, network: Any, config: Any, batch: tuple[int, int, int], source: Path) -> None:
    """Fix the batch of the network's input, or give the range that it may take."""
    image = network.get_input(0)
    fixed, *rest = tuple(image.shape)
    if fixed != -1:
        if set(batch) != {fixed}:
            raise UserError(
                f"batch {batch}: {source} has a fixed batch of {fixed}; give that, or export it again"
            )
    elif batch[0] == batch[2]:
        image.shape = (batch[0], *rest)
    else:
        profile = builder.create_optimization_profile()
        profile.set_shape(image.name, *((size, *rest) for size in batch))
        config.add_optimization_profile(profile)


def _configure(trt: Any, builder: Any, config: Any, options: BuildOptions, targets: Sequence[str]) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # otherwise the log has no types
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.backend == "tensorrt-rtx":
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            name = "CURRENT" if target == CURRENT else target.upper()
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    if options.hardware_compatible:
        level = {"ampere+": "AMPERE_PLUS", "same-cc": "SAME_COMPUTE_CAPABILITY"}[options.hardware_compatible]
        config.hardware_compatibility_level = _offered(trt, "HardwareCompatibilityLevel", level, options)
    if options.version_compatible:
        config.set_flag(_offered(trt, "BuilderFlag", "VERSION_COMPATIBLE", options))
    if options.dla_core is not None:
        dla.use(trt, builder, config, options)


def _offered(trt: Any, group: str, name: str, options: BuildOptions) -> Any:
    """The member `name` of an enumeration, which older versions may lack."""
    found = getattr(getattr(trt, group, None), name, None)
    if found is None:
        raise UserError(
            f"{name_of(trt, options)}: does not offer {group}.{name}; upgrade it or leave the option out"
        )
    return found


def _timing_cache(config: Any, path: Path | None) -> Any:
    """Give the builder earlier measurements; a cache that is damaged or of another GPU or TensorRT is not used."""
    if path is None:
        return None
    try:
        earlier = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as a timing cache ({error.strerror}); give a file"
        ) from error
    cache = config.create_timing_cache(earlier)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
