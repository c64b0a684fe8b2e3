"""What inference libraries compile at a start, kept for faster ones: in the user's cache folder, never beside a bundle.

A bundle may come from elsewhere, and a compiled network in it would run in place of the model that its checksums vouch
for. In the cache a network of OpenVINO is found by the digest of the bundle's manifest, which covers every model file,
and the kernels of TensorRT-RTX by that of the engine.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from deploy.backends.setting import Setting
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.files.atomic import atomic_write
from deploy.files.user_folders import cache_folder

MOST = 32
"""Files that are kept; the oldest give way."""
DIGEST = hashlib.sha256().digest_size


def blob_file(manifest: Manifest, wanted: str, setting: Setting) -> Path:
    """The file of a compiled network.

    Args:
        manifest: of the bundle.
        wanted: machine, packages and settings, as in `deploy.backends.choice.key`.
        setting: backend, precision and threads.
    """
    name = hashlib.sha256(f"{manifest.digest}\n{wanted}\n{setting}".encode()).hexdigest()
    return cache_folder() / f"{name}.blob"


def keep_blob(path: Path, blob: bytes) -> None:
    """Keep what was compiled for later starts; where the cache cannot be written, it is not kept."""
    with suppress(UserError, OSError, RuntimeError):  # RuntimeError: there is no home folder
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(hashlib.sha256(blob).digest() + blob)
        old = sorted(path.parent.glob("*.blob"), key=lambda one: one.stat().st_mtime)[:-MOST]
        for one in old:
            one.unlink(missing_ok=True)


def read_blob(path: Path) -> bytes | None:
    """What was kept; None where there is none, or the file is damaged."""
    try:
        content = path.read_bytes()
    except (OSError, RuntimeError):
        return None
    digest, blob = content[:DIGEST], content[DIGEST:]
    return blob if hashlib.sha256(blob).digest() == digest else None
