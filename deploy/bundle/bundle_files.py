"""Read, write and check the files of a bundle (`deploy.bundle.manifest` describes them)."""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from deploy.bundle.lock import locked
from deploy.bundle.manifest import (
    ENGINES,
    LONGEST_TEXT,
    MANIFEST,
    MOST_BYTES,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    as_written,
    check_file_names,
)
from deploy.bundle.signed import warn_if_signed
from deploy.errors import UserError
from deploy.files.atomic import atomic_write, named_write_errors, sha256_file
from deploy.files.json_files import one_line, read_json
from deploy.files.staging import staged
from deploy.text import shown_lines


def write_bundle(
    folder: str | Path,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    precision: Mapping[str, str] | None = None,
    keep: Iterable[str] = (),
) -> Manifest:
    """Write a bundle, replacing an older one.

    Everything is staged in a hidden sibling and renamed into place, so a bundle at `folder` is always complete.

    Args:
        folder: folder of the bundle.
        manifest: the manifest without `files` and `digest`.
        files: for each name in the bundle its bytes, or a file to copy.
        precision: for each model file its precision, such as "fp32".
        keep: subfolders of an older bundle that stay; everything else of it is removed.

    Returns:
        The manifest with `files` and `digest`.

    Raises:
        UserError: `folder` holds something other than a bundle, the disk is full, or the manifest is invalid.
        ValueError: a name in `files` is not a plain file name.
    """
    folder = Path(folder).resolve()
    with locked(folder):
        return _write(folder, manifest, files, precision, keep)


def _write(
    folder: Path,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    precision: Mapping[str, str] | None = None,
    keep: Iterable[str] = (),
) -> Manifest:
    """`write_bundle` where the folder, an absolute path, is locked."""
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
    made_from: Mapping[str, FileEntry] | None = None,
) -> Manifest:
    """Add or replace files and metrics of a bundle; its engines stay.

    At any moment the folder holds the old bundle or the new one. Two additions at once happen one after the other.

    Args:
        folder: folder of the bundle. The files that stay must be undamaged.
        files: as for `write_bundle`: the files to add or replace.
        precision: as for `write_bundle`.
        metrics: entries of `Manifest.metrics` to add or replace.
        drop: names of files to remove, unless they are in `files`.
        made_from: the files of the bundle that `files` were made from, as its manifest had them then.

    Returns:
        The new manifest.

    Raises:
        UserError: as `read_manifest`, `verify_files` and `write_bundle` do; or the bundle has other files than
            `made_from` by now.
    """
    folder = Path(folder).resolve()
    with locked(folder):
        manifest, leaving = read_manifest(folder), {*files, *drop}
        for name, entry in (made_from or {}).items():
            if manifest.files.get(name) != entry:
                raise UserError(f"{folder / name}: was replaced by another program meanwhile; run again")
        verify_files(folder, manifest, leaving)
        kept = {name: folder / name for name in manifest.files if name not in leaving}
        known = {name: entry.precision for name, entry in manifest.files.items()}
        manifest = msgspec.structs.replace(manifest, metrics=manifest.metrics | dict(metrics or {}))
        warn_if_signed(folder, "what is added, and is removed")
        return _write(folder, manifest, kept | dict(files), known | dict(precision or {}), keep=(ENGINES,))


def set_decision(
    folder: str | Path,
    threshold: float | None,
    temperature: float | None,
    metrics: Mapping[str, float | str | None] | None = None,
) -> Manifest:
    """Change how a bundle's scores become labels; all files but the manifest stay.

    Whether the bundle's task supports that is not checked here, but where the bundle is loaded
    (`deploy.tasks.registry.model_of`).

    Args:
        folder: folder of the bundle.
        threshold: new `Manifest.threshold`.
        temperature: new `Manifest.temperature`.
        metrics: entries of `Manifest.metrics` to add or replace, or to remove where the value is None.

    Returns:
        The new manifest.

    Raises:
        UserError: as `read_manifest` does; the threshold or the temperature is not possible; or the disk is full. The
            bundle is then unchanged.
    """
    folder = Path(folder).resolve()
    with locked(folder):
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
        warn_if_signed(folder, "the new threshold and temperature")
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check `manifest.json` (not the other files: see `verify_files`).

    Raises:
        UserError: `folder` is no bundle, or its manifest was edited, has a newer schema, or is malformed.
    """
    path = Path(folder) / MANIFEST
    _refuse_link(path)
    if not path.is_file():
        what = "has no manifest.json, so it is not a bundle" if Path(folder).is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; give the folder that the export wrote")
    raw = _parsed(path)
    version = raw["schema_version"]
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: has schema version {version}, this edgedistill reads up to {SCHEMA_VERSION}; upgrade edgedistill"
        )
    if raw.get("digest") != _digest(raw):
        raise UserError(f"{path}: was changed after the export (digest mismatch); export the bundle again")
    try:
        return msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {one_line(error)}; export the bundle again") from error


def require_unchanged(folder: str | Path, manifest: Manifest) -> None:
    """Refuse a bundle that is no longer the one whose manifest was read.

    Raises:
        UserError: it was replaced; or as `read_manifest` does.
    """
    if read_manifest(folder).digest != manifest.digest:
        raise UserError(f"{folder}: was replaced by another program meanwhile; run again")


def _parsed(path: Path) -> dict[str, Any]:
    """The content of a manifest as it is, with an integer `schema_version`; `UserError` if there is none."""
    try:
        raw = read_json(path, dict[str, Any], MOST_BYTES)
        if type(raw.get("schema_version")) is not int:
            raise ValueError("no integer `schema_version`")
    except ValueError as error:
        raise UserError(f"{path}: is not a manifest ({error}); export the bundle again") from error
    return raw


def verify_files(folder: str | Path, manifest: Manifest, skip: Collection[str] = ()) -> None:
    """Check that every file of a bundle is there and unchanged.

    Args:
        folder: folder of the bundle.
        manifest: its manifest.
        skip: names of files that are not checked, because they are about to be replaced.

    Raises:
        UserError: a file is missing, or has another size or checksum; the message names the first one.
    """
    for name, entry in manifest.files.items():
        if name in skip:
            continue
        path = Path(folder) / name
        _refuse_link(path)
        if not path.is_file():
            raise UserError(f"{path}: is missing from the bundle; copy the whole folder again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise UserError(f"{path}: has {size} bytes instead of {entry.bytes}; copy the whole folder again")
        if sha256_file(path) != entry.sha256:
            raise UserError(
                f"{path}: differs from the exported file (checksum mismatch); copy the whole folder again"
            )


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path}: is a symbolic link, a bundle holds files; copy it with cp -rL")


def _digest(raw: Mapping[str, object]) -> str:
    content = {key: value for key, value in raw.items() if key != "digest"}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _sealed(manifest: Manifest) -> Manifest:
    """The manifest with its digest, as `read_manifest` returns it (structs created in code do not check types)."""
    manifest = _encodable(manifest)
    try:
        checked = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
        return msgspec.structs.replace(checked, digest=_digest(_written(checked)))
    except msgspec.ValidationError as error:
        raise UserError(f"the manifest of bundle {manifest.name} is invalid: {one_line(error)}") from error


def _encodable(manifest: Manifest) -> Manifest:
    """The manifest with escapes in its provenance where commands and folders are not plain text."""
    provenance = {key: shown_lines(text)[:LONGEST_TEXT] for key, text in manifest.provenance.items()}
    return msgspec.structs.replace(manifest, provenance=provenance)


def _written(manifest: Manifest) -> dict[str, object]:
    """The manifest as it is written: without those of `temperature` and `threshold` that are not set."""
    raw = msgspec.json.decode(msgspec.json.encode(manifest)) | {"input": as_written(manifest.input)}
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
