"""OpenVINO on the CPU (x86 and ARM): often faster than ONNX Runtime, from the same files."""

import io
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from deploy.backends.engine import OUTPUTS
from deploy.backends.output_pool import OutputPool
from deploy.errors import UserError
from deploy.files.stamp import stamp_of
from deploy.forks import in_library, keep_in_children

_one_at_a_time = Lock()


class OvEngine:
    """An ONNX model in OpenVINO, compiled for single images, and for larger batches when the first one arrives.

    Args:
        model: a file or its bytes.
        threads: number of threads inside one call; None: one per physical core.
        name: `Engine.name`.
        bf16: compute in bf16 what the model computes in float.
        blob: what `export` returned for this model and these settings, in this version of OpenVINO, on this CPU: starts
            faster. A blob that OpenVINO refuses is ignored.

    Raises:
        UserError: OpenVINO is not installed, or it cannot load the model, or the model lacks the outputs `labels` and
            `logits`.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        threads: int | None = None,
        name: str = "openvino",
        bf16: bool = False,
        blob: bytes | None = None,
    ) -> None:
        self._openvino = import_openvino()
        self.name, self.file = name, None if isinstance(model, bytes) else Path(model)
        self._model, self._config = model, _config(threads, bf16)
        self._stamp = stamp_of(self.file)
        self._lock, self._network = Lock(), None
        self._forms: dict[bool, _Form] = {}
        self._process = None if threads == 1 else os.getpid()
        keep_in_children(self)
        with in_library:
            self._core, process = shared_core()
            if self._process is not None:
                _require_threads(process, name)
            if blob is not None:
                with suppress(RuntimeError):
                    self._forms[True] = self._adopt(
                        self._core.import_model(io.BytesIO(blob), "CPU", self._config)
                    )
            if not self._forms:
                self._compile_single()

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """See `deploy.backends.engine.Engine.run`; with several threads it refuses in a forked child, which lacks them.

        OpenVINO's threads belong to the whole process, so opening the file again there would not help.
        """
        if self._process is not None:
            _require_threads(self._process, self.name)
        try:
            with in_library:
                return self._run(batch)
        except RuntimeError as error:
            what = self.file or "the model"
            raise UserError(f"{what}: OpenVINO cannot run it ({_reason(error)}); export it again") from error

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        form = self._form(len(batch))
        try:  # pop and append of a list are atomic, so no two threads ever share a request
            request = form.idle.pop()
        except IndexError:
            request = form.network.create_infer_request()
        if form.pool is None:
            # Outputs are copied: of a network for any batch size, requests of several threads that are given memory of
            # their own write into each other's (seen in 2026.4).
            results = request.infer({0: batch}, share_inputs=True, share_outputs=False)
            outputs = {name: results[name] for name in OUTPUTS}
        else:
            slot = form.pool.take()
            for position, tensor in slot.bound:
                request.set_output_tensor(position, tensor)
            request.infer({0: batch}, share_inputs=True, share_outputs=True)
            outputs = form.pool.give_back(slot)
        form.idle.append(request)
        return outputs

    def export(self) -> bytes:
        """The network as compiled for single images, for `blob` of a later engine."""
        with in_library, self._lock:
            return self._forms[True].network.export_model().getvalue()

    def _compile_single(self) -> None:
        """Compile the network for single images; `UserError` where that fails."""
        what = self.file or "the model"
        try:
            found = [output.any_name for output in self._read().outputs]
            if set(OUTPUTS) <= set(found):
                self._form(1)
        except RuntimeError as error:
            version, reason = self._openvino.__version__.split("-")[0], _reason(error)
            raise UserError(
                f"{what}: OpenVINO {version} cannot load it ({reason}); export it again"
            ) from error
        if not set(OUTPUTS) <= set(found):
            raise UserError(
                f"{what}: has outputs {', '.join(found)}, needs {', '.join(OUTPUTS)}; export it again"
            )

    def _form(self, images: int) -> "_Form":
        """The network compiled for one image, which is 4–8 % faster, or for batches of any size."""
        single = images == 1
        with self._lock:
            if single not in self._forms:
                network = self._read()
                if single:
                    network = network.clone()  # it shares the weights
                    _, *sizes = network.inputs[0].partial_shape
                    network.reshape([1, *sizes])
                self._forms[single] = self._adopt(self._core.compile_model(network, "CPU", self._config))
            return self._forms[single]

    def _read(self) -> Any:
        """The network, read on first use: an engine from a blob that only sees single images needs none."""
        if self._network is None:
            source = io.BytesIO(self._model) if isinstance(self._model, bytes) else str(self._model)
            network = self._core.read_model(source)
            if stamp_of(self.file) != self._stamp:  # with a blob this may be hours after the opening
                raise UserError(f"{self.file}: has changed since it was loaded; load it again")
            self._network = network
        return self._network

    def _adopt(self, network: Any) -> "_Form":
        # An output may have several names: OpenVINO drops casts, and their inputs' names stay.
        ports = {name: (number, port) for number, port in enumerate(network.outputs) for name in port.names}
        if not all(port.partial_shape.is_static for _, port in ports.values()):
            return _Form(network, None, [])
        tensor = self._openvino.Tensor

        def bind(arrays: Mapping[str, np.ndarray]) -> list[tuple[int, Any]]:
            return [(ports[name][0], tensor(array, shared_memory=True)) for name, array in arrays.items()]

        shapes = {name: (tuple(ports[name][1].shape), _dtype(ports[name][1])) for name in OUTPUTS}
        return _Form(network, OutputPool(shapes, bind), [])


class _Form(NamedTuple):
    """A compiled network, and the requests that no call is using."""

    network: Any
    pool: OutputPool | None
    """Arrays for its outputs; None where their sizes depend on the batch."""
    idle: list[Any]


def import_openvino() -> Any:
    """Import OpenVINO, an optional dependency; `UserError` where it cannot be imported.

    Its model converter is hidden during the import: OpenVINO imports it only to report that to Intel over the network
    and into ~/intel (openvino/tools/ovc/__init__.py), which takes most of the time. `openvino.convert_model` still
    works: it is imported on first use.
    """
    converter = "openvino.tools.ovc"
    hidden = "openvino" not in sys.modules
    if hidden:
        sys.modules[converter] = None  # pyright: ignore[reportArgumentType] - makes its import an ImportError
    try:
        import openvino
    except (ImportError, OSError) as error:  # OSError: it is installed, but lacks a library that it loads
        hint = "pip install 'edgedistill[openvino]'"
        raise UserError(f"openvino: cannot be imported ({error}); {hint}") from error
    finally:
        if hidden:
            sys.modules.pop(converter, None)
    if hidden and not {"convert_model", "__getattr__"} & vars(openvino).keys():
        openvino.__getattr__ = _converter
    return openvino


def _converter(name: str) -> Any:
    """The `__getattr__` of the module: supplies the function that its converter would have added."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    return getattr(import_module("openvino.tools.ovc"), name)


def _require_threads(process: int, name: str) -> None:
    """Raise `UserError` in a child of the process that began OpenVINO's threads, which would wait for them."""
    if os.getpid() != process:
        raise UserError(
            f"{name}: OpenVINO was in use when this process was forked, and its threads do not follow into it; give"
            " threads=1, or start processes by multiprocessing.get_context('spawn')"
        )


def shared_core() -> tuple[Any, int]:
    """The one `openvino.Core` of this process, and the process that it belongs to; see `_make_core` for why one."""
    with _one_at_a_time:  # two threads at once would create two
        return _make_core()


@cache
def _make_core() -> tuple[Any, int]:
    """One core for the whole process, never released, and the number of that process.

    With its first model a core gives the calling thread another stack for signals (`SigAltStackSetup` in OpenVINO's CPU
    plugin), and restores the former one when it is destroyed. If the older of two cores is destroyed first, or
    another thread destroys one, the thread is left with a freed stack, and the next signal that Python handles, be it
    Ctrl-C or the end of a child, is a segmentation fault without a word.
    """
    core = import_openvino().Core()
    keep_in_children(core)  # which may have no engine left that holds it
    return core, os.getpid()


def _config(threads: int | None, bf16: bool) -> dict[str, object]:
    config: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        # By default it uses bf16 where the CPU has it, even for models whose accuracy was verified in fp32.
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        # With pinning, the first thread of every process runs on core 0: two processes would share it.
        "ENABLE_CPU_PINNING": False,
    }
    return config if threads is None else config | {"INFERENCE_NUM_THREADS": threads}


def _dtype(port: Any) -> np.dtype:
    return np.dtype(port.element_type.to_dtype())


def _reason(error: RuntimeError) -> str:
    """What an OpenVINO error says about the model, in one line: without the lines on where in OpenVINO it occurred."""
    noise = ("Exception from", "Check '", "FrontEnd API", "While validating", "Summary:", "To facilitate")
    lines = (line.strip(" -") for line in str(error).splitlines())
    telling = " ".join(line for line in lines if line and not line.startswith(noise))
    return telling[:200] or type(error).__name__
