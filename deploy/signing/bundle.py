"""Sign a bundle, and check the signature: `signature.json` beside the manifest.

What is signed is a `Statement`: the digest of the manifest, which holds the checksums of all files of the bundle, and
the checksums of the engines and sidecars that were in `engines/` then. An engine built later is not covered until the
bundle is signed again; nor are `engines/auto.json` and the receipts there, which only choose between covered files.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.engine_files import SUFFIX, engines_folder
from deploy.bundle.lock import locked
from deploy.bundle.manifest import ENGINES, MANIFEST, SIGNATURE, Manifest
from deploy.errors import UserError
from deploy.files.atomic import sha256_file, write_json
from deploy.files.json_files import one_line, read_json
from deploy.signing.envelope import Envelope, seal, short, signer
from deploy.signing.keys import PrivateKey, PublicKey, read_public
from deploy.text import shown

KIND = "application/vnd.edgedistill.bundle.v1+json"
MOST_BYTES = 4 << 20
"""Largest `signature.json` that is read."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed, as JSON."""

    manifest: Sha256
    """`Manifest.digest`."""
    engines: Annotated[dict[str, Sha256], Meta(max_length=1000)] = {}
    """SHA-256 of engines and their sidecars, by file name."""


class SignedBundle(NamedTuple):
    """A bundle whose signature was checked."""

    manifest: Manifest
    key: PublicKey
    """That signed it."""
    engines: frozenset[str]
    """SHA-256 of the engines that it covers."""


def sign_bundle(folder: Path, key: PrivateKey) -> list[str]:
    """Sign a bundle as it is now, with its engines. Signatures of the same content by other keys are kept.

    Returns:
        Ids of the other keys whose signatures were dropped, because they were made for other content.

    Raises:
        UserError: the bundle is damaged, or cannot be written.
    """
    with locked(folder):
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        statement = Statement(manifest.digest, _engines(folder))
        content = msgspec.json.encode(statement, order="sorted")
        before = None
        with suppress(UserError):  # there is none yet, or it is damaged
            before = _read(folder)
        same = before is not None and before.payload_type == KIND and before.content() == content
        others = before.signatures if before else ()
        envelope = seal(content, KIND, key, others if same else ())
        write_json(folder / SIGNATURE, envelope)
    return [] if same else [one.keyid for one in others if one.keyid != key.public.id]


def check_bundle(folder: Path, trusted: Sequence[PublicKey], engines: bool) -> SignedBundle:
    """Check that a bundle is what one of these keys has signed: its manifest and every file that it lists.

    Args:
        folder: the bundle.
        trusted: keys, at least one.
        engines: whether its engines must be covered, too: they are native code that a GPU's runtime executes.

    Raises:
        UserError: it is not; the message names the file.
    """
    path = folder / SIGNATURE
    manifest = read_manifest(folder)
    if not path.is_file():
        raise UserError(f"{folder}: is not signed (no {SIGNATURE}); get it signed, by edgedistill sign")
    try:
        envelope = _read(folder)
        key = signer(envelope, KIND, trusted)
        statement = msgspec.json.decode(envelope.content(), type=Statement)
    except (UserError, msgspec.MsgspecError) as error:
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    if statement.manifest != manifest.digest:
        raise UserError(
            f"{folder / MANIFEST}: is not the manifest that key {short(key.id)} signed; get the signed bundle, "
            "or sign this one, by edgedistill sign"
        )
    verify_files(folder, manifest)
    if engines:
        _check_engines(folder, statement)
    return SignedBundle(
        manifest, key, frozenset(sha for name, sha in statement.engines.items() if name.endswith(SUFFIX))
    )


def trusted_keys(keys: Sequence[str | Path | bytes]) -> list[PublicKey]:
    """Read the keys that a user trusts: PEM files, or their content as bytes.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    if isinstance(keys, str | bytes | Path) or len(keys) == 0:
        raise UserError(
            "trusted_keys: give a list of at least one public key, or None to load unsigned bundles"
        )
    return [read_public(key) for key in keys]


def uncovered(folder: Path, manifest: Manifest) -> list[str]:
    """Names of what lies in a signed bundle's folder without being covered by its signature; none of it is loaded,
    apart from files in `engines/` that choose between covered files."""
    statement = msgspec.json.decode(_read(folder).content(), type=Statement)
    listed = {MANIFEST, SIGNATURE, ENGINES, *manifest.files}
    others = [path.name for path in folder.iterdir() if path.name not in listed]
    inside = [path.name for path in engines_folder(folder).glob("*") if path.name not in statement.engines]
    return sorted(map(shown, [*others, *(f"{ENGINES}/{name}" for name in inside)]))


def _engines(folder: Path) -> dict[str, str]:
    """Checksums of everything in `engines/` that a GPU's runtime may be given, and of the sidecars."""
    found: dict[str, str] = {}
    for engine in sorted(engines_folder(folder).glob(f"*{SUFFIX}")):
        for path in (engine, engine.with_suffix(".json")):
            if path.is_file():
                found[path.name] = sha256_file(path)
    return found


def _check_engines(folder: Path, statement: Statement) -> None:
    for name, checksum in _engines(folder).items():
        if statement.engines.get(name) != checksum:
            when = "has changed since" if name in statement.engines else "was added after"
            raise UserError(
                f"{engines_folder(folder) / name}: {when} the bundle was signed; sign it again, by edgedistill sign, "
                "or load it with the backend onnxruntime or openvino"
            )


def _read(folder: Path) -> Envelope:
    path = folder / SIGNATURE
    try:
        return read_json(path, Envelope, MOST_BYTES)
    except ValueError as error:
        raise UserError(
            f"{path}: is not a signature ({one_line(error)}); copy the whole folder again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); copy the whole folder again") from error
