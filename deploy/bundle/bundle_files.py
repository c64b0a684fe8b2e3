"""Read, write and check the files of a bundle (`deploy.bundle.manifest` says what they are)."""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import msgspec
import numpy as np

from deploy.bundle.manifest import (
    ENGINES,
    GOLDEN,
    MANIFEST,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    check_file_names,
)
from deploy.errors import UserError
from deploy.files.atomic import atomic_write, named_write_errors, sha256_file
from deploy.files.staging import staged


def write_bundle(
    folder: str | Path,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    precision: Mapping[str, str] | None = None,
    keep: Iterable[str] = (),
) -> Manifest:
    """Write a bundle, replacing an older bundle at `folder`, and return its finished manifest.

    `files` maps names in the bundle to their bytes or to a file to copy; `precision` maps model files to "fp32", ….
    Of an older bundle nothing stays but the folders that `keep` names.
    Everything is staged in a hidden sibling and renamed into place, so a bundle at `folder` is always a whole one.
    Raises `UserError` when `folder` holds something else than a bundle, or the disk is full.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not (folder / MANIFEST).is_file() and not _is_empty_folder(folder):
        raise UserError(f"{folder}: exists and is not a bundle, so it is not replaced; choose another folder")
    check_file_names(files)
    precision = precision or {}
    with staged(folder, keep) as staging:
        entries = {}
        for name, source in sorted(files.items()):
            path = staging / name
            with named_write_errors(folder / name, path), open(path, "xb") as file:
                _fill(file, source)
            entries[name] = FileEntry(sha256_file(path), path.stat().st_size, precision.get(name, ""))
        manifest = _sealed(msgspec.structs.replace(manifest, files=entries, digest=""))
        path = staging / MANIFEST
        with named_write_errors(folder / MANIFEST, path), open(path, "xb") as file:
            _fill(file, _manifest_bytes(manifest))
    return manifest


def extend_bundle(
    folder: str | Path,
    files: Mapping[str, bytes | Path],
    precision: Mapping[str, str] | None = None,
    metrics: Mapping[str, float | str] | None = None,
    drop: Iterable[str] = (),
) -> Manifest:
    """Add files (and metrics) to a bundle, or replace some, and return its new manifest; its engines stay.

    Files named by `drop` are left out, unless they are among the new ones. What stays must be undamaged. The bundle is
    at any moment the old one or the new one. Raises `UserError` as `read_manifest` and `write_bundle` do.
    """
    folder = Path(folder).resolve()
    manifest, leaving = read_manifest(folder), {*files, *drop}
    verify_files(folder, manifest, leaving)
    kept = {name: folder / name for name in manifest.files if name not in leaving}
    known = {name: entry.precision for name, entry in manifest.files.items()}
    manifest = msgspec.structs.replace(manifest, metrics=manifest.metrics | dict(metrics or {}))
    return write_bundle(folder, manifest, kept | dict(files), known | dict(precision or {}), keep=(ENGINES,))


def set_decision(
    folder: str | Path,
    threshold: float | None,
    temperature: float | None,
    metrics: Mapping[str, float | str | None] | None = None,
) -> Manifest:
    """Change what turns a bundle's scores into labels, and return its new manifest; all files but the manifest stay.

    Of `metrics` those that are None are taken out. Raises `UserError` as `read_manifest` and `write_bundle` do, and for
    a threshold or a temperature that cannot be; the bundle is then as it was.
    """
    folder = Path(folder).resolve()
    manifest = read_manifest(folder)
    merged = manifest.metrics | dict(metrics or {})
    kept = {name: value for name, value in merged.items() if value is not None}
    changes = {"threshold": threshold, "temperature": temperature, "metrics": kept, "digest": ""}
    try:
        manifest = _sealed(msgspec.structs.replace(manifest, **changes))
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error
    with atomic_write(folder / MANIFEST) as file:
        file.write(_manifest_bytes(manifest))
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check `manifest.json` (not the other files: see `verify_files`).

    Raises `UserError` when `folder` is no bundle, the manifest was edited, is of a newer schema, or is malformed.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        what = "has no manifest.json, so it is not a bundle" if Path(folder).is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; give the folder that the export wrote")
    try:
        raw = msgspec.json.decode(path.read_bytes())
        version = raw["schema_version"]
        newer = version > SCHEMA_VERSION
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise UserError(f"{path}: is not a manifest ({error}); export the bundle again") from error
    if newer:
        raise UserError(
            f"{path}: has schema version {version}, this edgedistill reads up to {SCHEMA_VERSION}; upgrade edgedistill"
        )
    if raw.get("digest") != _digest(raw):
        raise UserError(f"{path}: was changed after the export (digest mismatch); export the bundle again")
    try:
        return msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}; export the bundle again") from error


def verify_files(folder: str | Path, manifest: Manifest, skip: Collection[str] = ()) -> None:
    """Raise `UserError` naming the first file that is missing, has another size, or another checksum.

    Files named by `skip` are not looked at: they are about to be replaced.
    """
    for name, entry in manifest.files.items():
        if name in skip:
            continue
        path = Path(folder) / name
        if not path.is_file():
            raise UserError(f"{path}: is missing from the bundle; copy the whole folder again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise UserError(f"{path}: has {size} bytes instead of {entry.bytes}; copy the whole folder again")
        if sha256_file(path) != entry.sha256:
            raise UserError(
                f"{path}: differs from the exported file (checksum mismatch); copy the whole folder again"
            )


def read_golden(folder: str | Path) -> dict[str, np.ndarray]:
    """The fixed `inputs` of the network and the `labels` and `logits` that they gave at export; see `Engine.run`.

    Raises `UserError` when the file is missing or does not hold the three.
    """
    path = Path(folder) / GOLDEN
    if not path.is_file():
        raise UserError(f"{path}: is missing, so there is nothing to compare with; export the bundle again")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("inputs", "labels", "logits")}
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"{path}: does not hold inputs, labels and logits ({error}); export the bundle again"
        ) from error


def _digest(raw: Mapping[str, object]) -> str:
    content = {key: value for key, value in raw.items() if key != "digest"}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _sealed(manifest: Manifest) -> Manifest:
    """The manifest with its digest, as `read_manifest` will see it (structs do not check types when built in code)."""
    try:
        checked = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
        return msgspec.structs.replace(checked, digest=_digest(_written(checked)))
    except msgspec.ValidationError as error:
        raise UserError(f"the manifest of bundle {manifest.name} is invalid: {error}") from error


def _written(manifest: Manifest) -> dict[str, object]:
    """The manifest as JSON has it: without a field of the decision that is not set, as if there were no choice."""
    raw = msgspec.json.decode(msgspec.json.encode(manifest))
    optional = ("temperature", "threshold")
    return {name: value for name, value in raw.items() if value is not None or name not in optional}


def _manifest_bytes(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_written(manifest)), indent=2) + b"\n"


def _is_empty_folder(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _fill(file: BinaryIO, source: bytes | Path) -> None:
    if isinstance(source, bytes):
        file.write(source)
    else:
        with open(source, "rb") as original:
            shutil.copyfileobj(original, file)
    file.flush()
    os.fsync(file.fileno())
