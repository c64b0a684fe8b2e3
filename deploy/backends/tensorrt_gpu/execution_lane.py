"""Running a TensorRT engine: the resources that each concurrent call needs for itself."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from deploy.backends.tensorrt_gpu.cuda_interface import Cuda, CudaError
from deploy.backends.tensorrt_gpu.device_arrays import Seen
from deploy.backends.tensorrt_gpu.log import ERROR, listen
from deploy.errors import UserError


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    """Shape for one image, without the batch axis."""


class Lane:
    """An execution context with a stream, and buffers for every tensor on the host and on the GPU.

    For one thread at a time, inside a `with cuda.current()`.
    """

    def __init__(
        self,
        cuda: Cuda,
        library: Any,
        context: Any,
        tensors: Sequence[Tensor],
        capacity: int,
        capture: bool = False,
    ) -> None:
        """Allocate buffers, and bind them to the context.

        Args:
            cuda: the GPU.
            library: the module `tensorrt` or `tensorrt_rtx`.
            context: the execution context.
            tensors: the input, then the outputs.
            capacity: the largest batch.
            capture: start the network as one CUDA graph, which works for batches of `capacity` only.
        """
        self._cuda, self._library, self._context = cuda, library, context
        self._input, *self._outputs = tensors
        self._batch, self._start = 0, self._enqueue
        # A GPU that shares the CPU's memory works there: nothing to copy, and no second buffer.
        self._shared = cuda.device.integrated
        with ExitStack() as owner:
            self.stream = cuda.stream(owner)
            self._here = {t.name: cuda.host_empty(owner, (capacity, *t.shape), t.dtype) for t in tensors}
            self._there = {
                name: cuda.mapped(array) if self._shared else cuda.malloc(owner, array.nbytes)
                for name, array in self._here.items()
            }
            # Released in reverse order: first wait for the GPU, then release the context, then the memory it uses.
            owner.callback(setattr, self, "_context", None)
            owner.callback(cuda.sync, self.stream)
            for name, address in self._there.items():
                self._must(f"take the address of {name}", context.set_tensor_address, name, address)
            if capture:
                self._start = self._captured(owner, capacity)
            self._owner = owner.pop_all()

    def close(self) -> None:
        """Release everything."""
        self._owner.close()

    def fill(self, images: np.ndarray, batch: int) -> None:
        """Set the images of a run; if `batch` is larger than their number, the last one is repeated."""
        here = self._here[self._input.name]
        here[: len(images)] = images
        here[len(images) : batch] = images[-1]
        self._resize(batch)

    def fill_from(self, seen: Seen, batch: int) -> None:
        """Queue a copy of images that are on the GPU; of a larger `batch` the rest is what earlier runs left there."""
        if seen.stream is not None:
            self._cuda.after(self.stream, seen.stream)
        target, size = self._there[self._input.name], prod(seen.shape) * seen.dtype.itemsize
        self._cuda.on_device(target, seen.address, size, self.stream)
        self._resize(batch)

    def queue(self, copies: bool = True, outputs: Sequence[str] | None = None) -> None:
        """Start a run.

        Args:
            copies: copy the input to the GPU and outputs back.
            outputs: those that are copied back; None: all.
        """
        copies = copies and not self._shared
        if copies:
            source = self._input.name
            self._cuda.to_device(self._there[source], self._here[source][: self._batch], self.stream)
        self._start()
        names = [output.name for output in self._outputs] if outputs is None else outputs
        for name in names if copies else ():
            self._cuda.to_host(self._here[name][: self._batch], self._there[name], self.stream)

    def take(self, name: str, images: int, dtype: type[np.generic] | np.dtype) -> np.ndarray:
        """Wait for the run and return an output for its first `images` images, as a new array."""
        self._cuda.sync(self.stream)
        return np.array(self._here[name][:images], dtype)

    def copy_out(self, name: str, target: int, size: int) -> None:
        """Queue a copy of an output's first `size` bytes to another place on the GPU."""
        self._cuda.on_device(target, self._there[name], size, self.stream)

    def profile(self, profiler: object) -> None:
        """Report the time of each layer of the following runs to an `IProfiler`."""
        self._context.profiler = profiler
        self._context.enqueue_emits_profile = True

    def _resize(self, batch: int) -> None:
        if batch != self._batch:
            shape = (batch, *self._input.shape)
            self._must(f"take the shape {shape}", self._context.set_input_shape, self._input.name, shape)
            self._batch = batch

    def _enqueue(self) -> None:
        self._must("run", self._context.execute_async_v3, self.stream)

    def _captured(self, owner: ExitStack, batch: int) -> Callable[[], None]:
        self._resize(batch)
        self._enqueue()  # the first run prepares for the shape, which must not become part of the graph
        self._cuda.sync(self.stream)
        try:
            return self._cuda.capture(owner, self.stream, self._enqueue)
        except CudaError as error:
            raise UserError(f"{error}; this engine supports no CUDA graph, open it without") from error

    def _must(self, what: str, call: Callable[..., bool], *arguments: object) -> None:
        with listen(self._library) as messages:
            done = call(*arguments)
        if not done:
            raise CudaError(f"TensorRT cannot {what}: {first_error(messages)}")


def first_error(messages: Sequence[Any]) -> str:
    """The first error that TensorRT logged, in one line."""
    errors = (" ".join(message.text.split()) for message in messages if message.severity <= ERROR)
    return next(errors, "it does not say why")
