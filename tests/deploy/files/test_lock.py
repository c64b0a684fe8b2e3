"""Locks between processes and threads; where a file system has none, nothing is locked."""

import os
import threading
import time

import pytest

from deploy.files import lock
from deploy.files.lock import acquire


@pytest.fixture
def descriptors(tmp_path):
    made = [os.open(tmp_path, os.O_RDONLY) for _ in range(2)]
    yield made
    for descriptor in made:
        os.close(descriptor)


def test_the_second_waits_as_long_as_it_may(descriptors):
    first, second = descriptors
    assert acquire(first)
    began = time.monotonic()
    assert not acquire(second, 0.2)
    assert 0.2 <= time.monotonic() - began < 5


def test_the_second_gets_it_when_the_first_has_ended(tmp_path):
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    assert acquire(first)
    threading.Timer(0.2, os.close, (first,)).start()
    assert acquire(second, 10)
    os.close(second)


def test_without_locks_nobody_is_kept_out(descriptors, monkeypatch):
    def refuse(*_):
        raise OSError(9, "as on some network file systems")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    assert all(map(acquire, descriptors))
