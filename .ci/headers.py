"""Fetch the C++ headers of ONNX Runtime from Debian's package: `python .ci/headers.py FOLDER`.

ONNX Runtime keeps its interface compatible, so these fit newer libraries too.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

URL = "http://deb.debian.org/debian/pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb"
SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"


def main(target: Path) -> None:
    """Put the headers into `target`, unless it exists.

    Raises:
        SystemExit: the package cannot be fetched or unpacked, or is another file than expected.
    """
    if target.exists():
        return
    try:
        _fetch(target)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {URL}: {error}")


def _fetch(target: Path) -> None:
    with urllib.request.urlopen(URL, timeout=60) as answer:
        package = answer.read()
    if hashlib.sha256(package).hexdigest() != SHA256:
        sys.exit(f"error: {URL} is not the expected package")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        file = Path(folder, "package.deb")
        file.write_bytes(package)
        subprocess.run(["dpkg-deb", "-x", file, folder], check=True)
        shutil.move(Path(folder, "usr/include/onnxruntime"), target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
