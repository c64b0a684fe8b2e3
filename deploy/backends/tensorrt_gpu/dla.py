"""Compile for a Jetson's deep learning accelerator (DLA): memory, which layers it takes, and what it got in the end.

Sources: NVIDIA, TensorRT developer guide, "Working with DLA" (memory pools, at most 16 loadables a core); the builder's
own `can_run_on_DLA`; its log, which lists the parts of a network with [DlaLayer] and [GpuLayer]. Not run on a DLA here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from deploy.backends.tensorrt_gpu.layer_report import onnx_names
from deploy.backends.tensorrt_gpu.log import Message
from deploy.backends.tensorrt_gpu.options import POOLS, BuildOptions, pools
from deploy.bundle.engine_files import DlaLayers
from deploy.errors import UserError

LISTED = ("[DlaLayer]", "[GpuLayer]")
"""Beginnings of the log's lines about a part of the engine."""
_NOTHING_TO_DO = ("CONSTANT", "SHAPE")
"""Layers that are gone when the network runs."""
SHOWN = 8


def use(trt: Any, builder: Any, config: Any, options: BuildOptions) -> None:
    """Configure the builder for the DLA.

    Raises:
        UserError: the machine has no such core.
    """
    cores = builder.num_DLA_cores
    if options.dla_core not in range(cores):
        here = f"cores 0 to {cores - 1}" if cores else "no DLA that this TensorRT can use"
        raise UserError(
            f"dla_core {options.dla_core}: this machine has {here}; leave it out to run on the GPU"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    for name, size in pools(options.dla_pools).items():
        config.set_memory_pool_limit(getattr(trt.MemoryPoolType, POOLS[name]), size)
    if options.allow_gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def place(config: Any, network: Any, options: BuildOptions, source: Path) -> DlaLayers | None:
    """Which layers of a parsed network the DLA takes, before the build, which may take minutes; None without a DLA.

    Raises:
        UserError: it does not take all of them, and they may not go to the GPU.
    """
    if options.dla_core is None:
        return None
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    layers = [layer for layer in layers if layer.type.name not in _NOTHING_TO_DO]
    refused = [layer for layer in layers if not config.can_run_on_DLA(layer)]
    names = tuple(
        f"{layer.type.name.lower()} {', '.join(onnx_names(layer.metadata)) or layer.name}"
        for layer in refused
    )
    if refused and not options.allow_gpu_fallback:
        raise UserError(
            f"{source}: the DLA does not take {len(refused)} of {len(layers)} layers ({some(names)});"
            " allow them to run on the GPU (leave --no-gpu-fallback out)"
        )
    return DlaLayers(len(layers) - len(refused), names)


def counted(placed: DlaLayers, messages: Sequence[Message]) -> DlaLayers:
    """With the parts of the engine that the builder lists."""
    texts = [line for _, text in messages for line in text.splitlines()]
    on_dla, on_gpu = (sum(text.startswith(kind) for text in texts) for kind in LISTED)
    return msgspec.structs.replace(placed, parts=on_dla, gpu_parts=on_gpu) if on_dla or on_gpu else placed


def words(found: DlaLayers) -> str:
    """For users."""
    refused = found.on_gpu
    parts = "" if found.parts is None else f", in {found.parts} parts there and {found.gpu_parts} on the GPU"
    text = f"DLA: takes {found.layers} of {found.layers + len(refused)} layers{parts}"
    return f"{text}; on the GPU: {some(refused)}" if refused else text


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
