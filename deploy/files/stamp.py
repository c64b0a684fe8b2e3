"""What tells a file from one that replaces it, without reading it."""

from pathlib import Path


def stamp_of(file: Path | None) -> tuple[int, ...]:
    """Its inode, size and time of modification; empty where there is none."""
    if file is None or not file.exists():
        return ()
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
