"""Write down the signatures of a TensorRT that cannot run here, from the docstrings of its Python bindings.

    pip download --no-deps tensorrt-cu12-bindings==10.3.0 && unzip tensorrt_cu12_bindings-*.whl
    python tests/deploy/backends/tensorrt_gpu/signatures/dump.py tensorrt_bindings/tensorrt.so 10.3.0

The extension module is imported over empty libraries in place of TensorRT's own, of which it needs names only: nothing
of TensorRT runs. The file beside this one, `tensorrt-10.3.json`, then has names, parameters and enumerations.
"""

import ctypes
import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

CLASSES = (
    *("Builder", "IBuilderConfig", "INetworkDefinition", "ILayer", "ITensor", "IOptimizationProfile"),
    *("OnnxParser", "ParserError", "ITimingCache", "IHostMemory", "Runtime", "ICudaEngine"),
    *("IExecutionContext", "IRuntimeConfig", "EngineInspector", "ILogger", "IProfiler", "IProgressMonitor"),
)
ENUMS = (
    *("BuilderFlag", "DataType", "DeviceType", "ExecutionContextAllocationStrategy"),
    *("HardwareCompatibilityLevel", "LayerInformationFormat", "LayerType", "MemoryPoolType"),
    *("NetworkDefinitionCreationFlag", "ProfilingVerbosity", "TensorIOMode"),
)
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
"""What the bindings need of TensorRT's libraries."""


def main() -> None:
    """Import the extension module that the command line names, and write its signatures."""
    file, version = sys.argv[1:]
    module = import_bindings(Path(file), version.partition(".")[0])
    found = {
        "version": version,
        "classes": {name: describe(getattr(module, name)) for name in CLASSES if hasattr(module, name)},
        "enums": {
            name: {member: int(value) for member, value in getattr(module, name).__members__.items()}
            for name in ENUMS
            if hasattr(module, name)
        },
    }
    short = ".".join(version.split(".")[:2])
    out = Path(__file__).with_name(f"tensorrt-{short}.json")
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def import_bindings(file: Path, major: str) -> ModuleType:
    """Import the extension module over libraries that hold nothing but names."""
    with TemporaryDirectory() as scratch:
        code = Path(scratch) / "stub.c"
        code.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
            library = Path(scratch) / f"lib{name}.so.{major}"
            subprocess.run(
                ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, code], check=True
            )
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        spec = spec_from_file_location("tensorrt", file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def describe(kind: type) -> dict[str, object]:
    """Signatures of the methods of a class, one for each overload, names of properties, and nested enumerations."""
    methods, properties, enums = {}, [], {}
    for name, value in vars(kind).items():
        pattern = rf"^(?:\d+\. )?({name}\(self: .*\) -> .*)$"
        if isinstance(value, property):
            properties.append(name)
        elif lines := re.findall(pattern, getattr(value, "__doc__", None) or "", re.MULTILINE):
            methods[name] = [
                line.replace("tensorrt_bindings.", "").replace("tensorrt.", "") for line in lines
            ]
        elif isinstance(value, type) and hasattr(value, "__members__"):
            enums[name] = {member: int(one) for member, one in value.__members__.items()}
    return {"methods": methods, "properties": sorted(properties), "enums": enums}


if __name__ == "__main__":
    main()
