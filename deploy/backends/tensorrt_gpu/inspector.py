"""Read TensorRT's own description of an engine (`IEngineInspector`): a second witness beside the builder's log.

It exists only where the engine can be loaded, on the GPU. Layers are objects if the engine was built with detailed
profiling verbosity, as ours are.
"""

import json
from collections.abc import Mapping
from typing import Any

from deploy.backends.tensorrt_gpu.layer_report import (
    Layer,
    LayerReport,
    Work,
    onnx_names,
    report_of,
    type_name,
)
from deploy.backends.tensorrt_gpu.log import logger
from deploy.backends.tensorrt_gpu.options import BuildOptions


def inspect_engine(trt: Any, engine: Any) -> dict[str, Any]:
    """What the inspector says of an `ICudaEngine`: a list of its "Layers", and more."""
    inspector = engine.create_engine_inspector()
    return json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def inspect_plan(trt: Any, plan: memoryview, options: BuildOptions) -> dict[str, Any] | None:
    """What the inspector says of an engine that was just compiled; None where it cannot be loaded.

    Args:
        trt: the module `tensorrt`, on a machine with a GPU.
        plan: the engine.
        options: how it was built.
    """
    try:
        runtime = trt.Runtime(logger(trt))
        runtime.engine_host_code_allowed = options.version_compatible
        if options.dla_core is not None:
            runtime.DLA_core = options.dla_core
        engine = runtime.deserialize_cuda_engine(plan)
        return inspect_engine(trt, engine) if engine else None
    except (TypeError, RuntimeError, ValueError):  # a null pointer of C++; JSON that is none
        return None


def read_layers(found: Mapping[str, Any], works: Mapping[str, Work] | None = None) -> LayerReport | None:
    """The layers as a report, like that of the log (`layer_report.parse`); None if they have another form."""
    try:
        layers = [_layer(one) for one in found["Layers"]]
    except (KeyError, TypeError, AttributeError):
        return None
    layers = [layer for layer in layers if layer.outputs]
    return report_of(layers, works) if layers else None


def _layer(found: Mapping[str, Any]) -> Layer:
    tensors = {
        key: [_type(one) for one in found.get(key) or ()] for key in ("Inputs", "Constants", "Outputs")
    }
    weights = tensors["Constants"]
    if isinstance(found.get("Weights"), dict):
        weights = [type_name(found["Weights"]["Type"])]
    return Layer(
        name=found["Name"],
        kind=found["LayerType"],
        onnx=onnx_names(found.get("Metadata") or ""),
        inputs=tuple(tensors["Inputs"]),
        weights=tuple(weights),
        outputs=tuple(tensors["Outputs"]),
    )


def _type(tensor: Mapping[str, Any]) -> str:
    return type_name(tensor.get("Datatype") or tensor["Format/Datatype"])
