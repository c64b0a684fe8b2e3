"""Signed bundles and keys that the tests of `deploy.signing` share."""

from pathlib import Path
from typing import NamedTuple

from deploy.signing.bundle import sign_bundle
from deploy.signing.keys import public_path, read_private, write_keys
from tests.deploy.tiny import make_bundle


class Key(NamedTuple):
    """The two files of a key."""

    private: Path
    public: Path
    id: str


def make_key(folder: Path, name: str) -> Key:
    """A new key."""
    path = folder / f"{name}.pem"
    return Key(path, public_path(path), write_keys(path).id)


def make_signed(folder: Path, key: Key) -> Path:
    """A bundle that is signed by the key."""
    make_bundle(folder, "sar")
    sign_bundle(folder, read_private(key.private))
    return folder
