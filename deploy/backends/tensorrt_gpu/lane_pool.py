"""The lanes of an engine: as many as calls run at a time, and no more than fit the GPU."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Condition, Lock

from deploy.backends.tensorrt_gpu.cuda_interface import OutOfGpuMemory
from deploy.backends.tensorrt_gpu.execution_lane import Lane
from deploy.errors import UserError, warn


class LanePool:
    """Lends lanes to callers, who wait while the most that may exist are in use. For any number of threads.

    Args:
        name: of the engine, for errors.
        make: creates a lane for a batch size. Called by one thread at a time, as TensorRT's engines require.
        most: how many lanes may exist.
    """

    def __init__(self, name: str, make: Callable[[int], Lane], most: int) -> None:
        self._name, self._make, self.most = name, make, most
        self._idle: dict[int, list[Lane]] = defaultdict(list)
        self._count = 0
        self._short = False
        self._closed = False
        self._change, self._making = Condition(), Lock()

    @contextmanager
    def lane(self, capacity: int) -> Iterator[Lane]:
        """Lend a lane for batches of `capacity` images; wait for one if need be.

        Raises:
            UserError: the pool is closed, or there is not even memory for one lane.
        """
        lane = self._take(capacity)
        with ExitStack() as discard:
            discard.callback(self._discard, lane)
            yield lane
            discard.pop_all()  # after a failure its state is unknown, so it is closed; without one it is reusable
        with self._change:
            if not self._closed:
                self._idle[capacity].append(lane)
                self._change.notify_all()
                return
        self._discard(lane)

    def close(self) -> None:
        """Close all lanes; those in use are closed when they are given back."""
        with self._change:
            self._closed = True
            lanes = [lane for lanes in self._idle.values() for lane in lanes]
            self._idle.clear()
            self._change.notify_all()
        with ExitStack() as owner:
            for lane in lanes:
                owner.callback(self._discard, lane)

    def _take(self, capacity: int) -> Lane:
        while True:
            lane, fits = self._reserve(capacity)
            if lane and fits:
                return lane
            try:
                if lane:  # it is for another batch size, and gives way
                    lane.close()
                with self._making:
                    return self._make(capacity)
            except OutOfGpuMemory as error:
                if not self._manages_with_fewer(error):
                    raise
            except BaseException:
                self._forget()
                raise

    def _reserve(self, capacity: int) -> tuple[Lane | None, bool]:
        """A lane, and whether it is for this capacity; None, and the right to make one."""
        with self._change:
            while True:
                if self._closed:
                    raise UserError(f"{self._name}: was closed; load the bundle again")
                if self._idle[capacity]:
                    return self._idle[capacity].pop(), True
                if self._count < self.most:
                    self._count += 1
                    return None, False
                for others in self._idle.values():
                    if others:
                        return others.pop(0), False
                self._change.wait()

    def _manages_with_fewer(self, error: OutOfGpuMemory) -> bool:
        """After a lane could not be made: whether there are others, which then are all that there will ever be."""
        with self._change:
            self._count -= 1
            self._change.notify_all()
            if not self._count:
                return False
            self.most = self._count
            first, self._short = not self._short, True
        if first:
            warn(
                f"{error}; until then fewer calls run at a time, and others wait (max_contexts sets how many)"
            )
        return True

    def _discard(self, lane: Lane) -> None:
        try:
            lane.close()
        finally:
            self._forget()

    def _forget(self) -> None:
        with self._change:
            self._count -= 1
            self._change.notify_all()
