"""Worker processes that fail, die or hang are errors in one line."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from deploy.errors import UserError
from distill.data.loader import train_batches
from distill.data.sample import Sample
from distill.data.train_view import TrainView
from tests.distill.data.test_loader import CROP, MEAN, Scenes, view


def test_full_shared_memory_is_one_line_at_once(monkeypatch):
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # in the forked workers
    with pytest.raises(
        UserError, match=r"\(/dev/shm\) has no room for a batch of .* MiB; .*--student-train.workers 0"
    ):
        next(train_batches(view(), 4, 0, 0, 2, workers=1))


class Dying(Scenes):
    """A reader whose process is killed, as the system does where memory is short."""

    def __getitem__(self, index: int) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch raises wherever it is
def test_a_killed_worker_is_one_line():
    source = TrainView(Dying(), size=(32, 32), augment=CROP, mean=MEAN, optical=False, seed=0)
    with pytest.raises(UserError, match=r"a process that loads images failed .*--teacher-train.workers 0"):
        next(train_batches(source, 4, 0, 0, 2, workers=1))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of torch, which finds it killed
def test_a_stuck_worker_is_ended(monkeypatch):
    class Stuck(Scenes):
        def __getitem__(self, index: int) -> Sample:
            time.sleep(100)
            return super().__getitem__(index)

    monkeypatch.setattr("distill.data.loader.TIMEOUT", 1)
    source = TrainView(Stuck(), size=(32, 32), augment=CROP, mean=MEAN, optical=False, seed=0)
    with pytest.raises(UserError, match="timed out after 1 seconds"):
        next(train_batches(source, 4, 0, 0, 2, workers=1))
    time.sleep(0.2)
    assert not multiprocessing.active_children()
