"""ONNX Runtime on the CPU: the engine of every installation."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from deploy.backends.engine import OUTPUTS
from deploy.backends.output_pool import OutputPool, shapes_of
from deploy.errors import UserError
from deploy.files.stamp import stamp_of
from deploy.forks import REMEDY, in_library, keep_in_children, require_same_process
from deploy.host import cpu_flags

SIZES = 4
"""Sizes of batches whose output arrays are kept for reuse; with more, the engine would keep ever more memory."""


class OrtEngine:
    """An ONNX model in ONNX Runtime; one session serves any number of threads.

    Args:
        model: a file or its bytes.
        threads: number of threads inside one call; None: one per physical core.
        optimize: False runs the graph as written, operator by operator: slow, and the reference for the optimized one.
        name: `Engine.name`.
        spinning: False lets the threads sleep between the operators of a call: usually slower, unless something else
            wants the cores.
        int8_kernels: False computes QuantizeLinear and DequantizeLinear as written and what is between them in float:
            for files made for TensorRT, whose float16 scales the INT8 kernels refuse.
        providers: execution providers and their options, which are tried before the CPU.

    Raises:
        UserError: ONNX Runtime is not installed, or the model does not load or lacks the outputs `labels` and `logits`.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        threads: int | None = None,
        optimize: bool = True,
        name: str = "onnxruntime",
        spinning: bool = True,
        int8_kernels: bool = True,
        providers: Sequence[tuple[str, Mapping[str, str]]] = (),
    ) -> None:
        onnxruntime = import_onnxruntime()
        self.name, self.file = name, None if isinstance(model, bytes) else Path(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings about folded constants are of no use to a user
        options.intra_op_num_threads = threads or 0
        # Otherwise the threads keep spinning after a call and slow down what runs next on their cores: another model,
        # or the program itself. Measured with two models taking turns: 4.9 → 3.3 ms; with a single one no difference.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        if not int8_kernels:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
        if sums_overflow():  # slower, without overflow; it would also halve the speed of CPUs with VNNI
            options.add_session_config_entry("session.x64quantprecision", "1")
        source = model if isinstance(model, bytes) else str(model)
        self._connect = partial(
            onnxruntime.InferenceSession,
            source,
            options,
            providers=[*providers, "CPUExecutionProvider"],
            enable_fallback=0,
        )
        self._stamp, self._reopening = stamp_of(self.file), Lock()
        self._inherited: list[object] = []
        keep_in_children(self)
        self._open()
        found = [output.name for output in self._session.get_outputs()]
        if not set(OUTPUTS) <= set(found):
            what = self.file or "the model"
            raise UserError(
                f"{what}: has outputs {', '.join(found)}, needs {', '.join(OUTPUTS)}; export it again"
            )
        self._input = self._session.get_inputs()[0].name
        self._ort_value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._gpu_of = os.getpid() if providers else None
        self._alone = threads == 1

    def _open(self) -> None:
        what = self.file or "the model"
        try:
            with in_library:
                self._session = self._connect()
        except UserError:
            raise
        except Exception as error:  # its errors have no common public base
            version, reason = import_onnxruntime().__version__, str(error).splitlines()[0]
            raise UserError(
                f"{what}: ONNX Runtime {version} cannot load it ({reason}); export it again"
            ) from error
        self._pools: dict[tuple[int, ...], OutputPool] = {}
        self._process = os.getpid()

    def _require_threads(self) -> None:
        """Open the file again in a forked child, which has none of the session's threads: it would wait for them."""
        if self._gpu_of is not None:
            require_same_process(self._gpu_of, self.name)
        if self._alone or self._process == os.getpid():
            return
        with in_library, self._reopening:
            if self._process == os.getpid():
                return
            if stamp_of(self.file) != self._stamp:
                raise UserError(
                    f"{self.file}: has changed since it was loaded, before this process was forked; {REMEDY}"
                )
            # ending a session waits for its threads, too
            self._inherited.append((self._session, self._pools))
            self._open()

    @property
    def providers(self) -> Sequence[str]:
        """The execution providers that ONNX Runtime has really loaded."""
        return self._session.get_providers()

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """See `deploy.backends.engine.Engine.run`."""
        self._require_threads()
        try:
            with in_library:
                return self._run(batch)
        except (MemoryError, UserError):
            raise
        except Exception as error:  # as above
            what, reason = self.file or "the model", str(error).splitlines()[0]
            raise UserError(f"{what}: ONNX Runtime cannot run it ({reason}); export it again") from error

    def all_outputs(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Every output of the network by name, in the types of the file."""
        self._require_threads()
        names = [output.name for output in self._session.get_outputs()]
        with in_library:
            values = self._session.run(names, {self._input: batch})
        return dict(zip(names, map(np.asarray, values), strict=True))

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        pool = self._pools.get(batch.shape)
        if pool is None:  # sizes of the logits are known only after a run
            labels, logits = self._session.run(OUTPUTS, {self._input: batch})
            outputs = {"labels": np.asarray(labels), "logits": np.asarray(logits)}
            if len(self._pools) >= SIZES:
                self._pools = {}  # calls of other threads give their arrays back to the pools that they took them from
            self._pools[batch.shape] = OutputPool(shapes_of(outputs), self._bind)
            return outputs
        slot = pool.take()
        slot.bound.bind_cpu_input(self._input, batch)
        self._session.run_with_iobinding(slot.bound)
        return pool.give_back(slot)

    def _bind(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """A binding that lets the session write its outputs into `arrays`."""
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_ortvalue_output(name, self._ort_value(array))
        return binding


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, without its telemetry; `UserError` where it cannot be imported.

    Version 1.32 writes an identifier of the machine into the user's cache folder and looks up a host of its maker. Only
    this variable stops both, and only before the import; `disable_telemetry_events` comes too late. Whoever wants
    telemetry sets it to 0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # start-up time: only when an engine needs it
    except (ImportError, OSError) as error:  # OSError: it is installed, but lacks a library that it loads
        raise UserError(f"onnxruntime: cannot be imported ({error}); pip install onnxruntime") from error
    return onnxruntime


def sums_overflow() -> bool:
    """Whether this is an x86 CPU without VNNI, which adds products of u8 and s8 in 16 bits and may overflow silently.

    See onnxruntime_session_options_config_keys.h. False where the system does not report the CPU's features.
    """
    flags = cpu_flags()
    is_x86 = "sse2" in flags  # ARM CPUs have neither sse2 nor the overflow
    return is_x86 and not any("vnni" in flag for flag in flags)
