"""Exclusive locks between processes: those of the system (`flock`), which leave no file and end with their process."""

import fcntl
import time

_PAUSE = 0.05


def acquire(descriptor: int, seconds: float = 0.0) -> bool:
    """Lock an open file or folder until its descriptor is closed.

    Args:
        descriptor: of the file or folder.
        seconds: how long to wait for another process or thread that holds the lock.

    Returns:
        False if another one still holds it; True if it is ours, or if its file system cannot lock.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
        except OSError:  # a file system without locks
            return True
        else:
            return True
        time.sleep(_PAUSE)
