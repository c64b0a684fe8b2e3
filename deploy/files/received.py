"""Images that come as bytes, from stdin or a network, as files that the one reader of images reads."""

from pathlib import Path

NPY = b"\x93NUMPY"


def written(content: bytes, folder: Path, name: str) -> Path:
    """Write an image's bytes to a new file. Its reader tells the kind by the first bytes, so the suffix is a formality.

    Args:
        content: a file with one of `deploy.files.images.IMAGE_SUFFIXES`.
        folder: where to write it.
        name: of the file, without a suffix.
    """
    path = folder / f"{name}{'.npy' if content.startswith(NPY) else '.png'}"
    path.write_bytes(content)
    return path
