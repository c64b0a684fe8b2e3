"""Ed25519 keys in PEM files, as `openssl genpkey -algorithm ed25519` writes them.

Only this module needs `cryptography`, and imports it on demand.
"""

import hashlib
import os
import stat
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy.errors import UserError, warn
from deploy.files.atomic import named_write_errors, require_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSWORD = "EDGEDISTILL_KEY_PASSWORD"
"""Environment variable with the password of an encrypted private key."""
MOST_BYTES = 1 << 16
"""Largest key file that is read."""


class PublicKey(NamedTuple):
    """A key that signatures are checked with."""

    id: str
    """SHA-256 of the key in DER (SubjectPublicKeyInfo), in hexadecimal."""
    key: "Ed25519PublicKey"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature of the message."""
        from cryptography.exceptions import InvalidSignature  # optional dependency

        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class PrivateKey(NamedTuple):
    """A key that signs."""

    public: PublicKey
    key: "Ed25519PrivateKey"

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes (RFC 8032)."""
        return self.key.sign(message)


def read_public(source: str | Path | bytes) -> PublicKey:
    """Read a public key.

    Args:
        source: a PEM file, or the content of one.

    Raises:
        UserError: it cannot be read, or is no public Ed25519 key; or `cryptography` is not installed.
    """
    content, where = (source, "the key") if isinstance(source, bytes) else (_read(Path(source)), str(source))
    if b"PRIVATE KEY" in content:
        raise UserError(f"{where}: is a private key; give the public one, and keep this one to yourself")
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # the library raises types of its own, of OpenSSL and of Python
        raise UserError(f"{where}: is not a public key in PEM; edgedistill keygen makes one") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UserError(f"{where}: is not an Ed25519 key; edgedistill keygen makes one")
    return _public(key)


def read_private(path: Path) -> PrivateKey:
    """Read a private key; the password of an encrypted one comes from `$EDGEDISTILL_KEY_PASSWORD`, or is asked for.

    Raises:
        UserError: it cannot be read, or is no private Ed25519 key; or `cryptography` is not installed.
    """
    content = _read(path)
    if b"PUBLIC KEY" in content:
        raise UserError(f"{path}: is a public key; sign with the private one")
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_private_key(
            content, _password(path) if b"ENCRYPTED" in content else None
        )
    except UserError:
        raise
    except Exception as error:  # as above
        raise UserError(f"{path}: is not a private key in PEM, or its password is wrong") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UserError(f"{path}: is not an Ed25519 key; edgedistill keygen makes one")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"{path}: other users may read this private key; chmod 600 it")
    return PrivateKey(_public(key.public_key()), key)


def write_keys(path: Path) -> PublicKey:
    """Make a new key: the private one at `path`, readable by its owner only, the public one beside it as `.pub.pem`.

    The private key is encrypted where `$EDGEDISTILL_KEY_PASSWORD` is set.

    Raises:
        UserError: a file exists, or cannot be written; or `cryptography` is not installed.
    """
    serialization, ed25519 = _library()
    key, public = ed25519.Ed25519PrivateKey.generate(), public_path(path)
    password = os.environ.get(PASSWORD)
    protection = (
        serialization.BestAvailableEncryption(os.fsencode(password))
        if password
        else serialization.NoEncryption()
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    for file in (path, public):
        if file.exists():
            raise UserError(f"{file}: exists; a key is never overwritten, choose another name")
    _create(path, key.private_bytes(pem, pkcs8, protection), 0o600)
    _create(public, key.public_key().public_bytes(pem, spki), 0o644)
    return _public(key.public_key())


def public_path(private: Path) -> Path:
    """The file of the public key that `write_keys` writes."""
    return require_name(private).with_name(f"{private.name.removesuffix('.pem')}.pub.pem")


def _public(key: "Ed25519PublicKey") -> PublicKey:
    serialization, _ = _library()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(hashlib.sha256(der).hexdigest(), key)


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UserError(f"signatures need cryptography ({error}): pip install 'edgedistill[sign]'") from error
    return serialization, ed25519


def _password(path: Path) -> bytes:
    password = os.environ.get(PASSWORD)
    if password is None and sys.stdin is not None and sys.stdin.isatty():
        password = getpass(f"password of {path}: ")
    if password is None:
        raise UserError(f"{path}: is encrypted; set {PASSWORD}")
    return os.fsencode(password)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: the key cannot be read ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: is too large for a key")
    return content


def _create(path: Path, content: bytes, mode: int) -> None:
    with named_write_errors(path, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
