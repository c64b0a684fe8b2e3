"""The output folder of a run: claimed once, used by one process, and resumed only with the same settings and data."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import msgspec

from deploy.errors import UserError
from deploy.files.atomic import named_write_errors, write_json
from deploy.files.json_files import read_record
from deploy.files.lock import acquire
from deploy.files.staging import remove_leftovers
from distill.config import DataConfig, DistillConfig, ModelConfig
from distill.data.fingerprint import Fingerprint, differences, fingerprint
from distill.data.splits import Splits
from distill.export_config import Int8Config
from student.zoo import unrecorded_depths

SETTINGS = "config.json"
ORIGIN = "origin.json"
SCHEDULE = "schedule.json"
"""What was reduced to fit `--max-minutes`, in the run's folder: a resumed run takes the same steps."""
RESTART = "choose another --out"
"""Remedy for a damaged record of a run."""
PATIENCE = 12.0
"""Seconds to wait for a run's lock: more than the workers of a killed process live on."""


def _plain(value: object) -> object:
    """A value of a field as it is in JSON."""
    return list(value) if isinstance(value, tuple) else value


FREE = {
    *(
        "resume",
        "out",
        "page",
        "tracker",
        "data.root",
        "data.download",
        "data.cache",
        "data.allow_absent_classes",
    ),
    *("data.unlabeled", "images"),  # which images these are is compared in `check_origin`
    *("distill.cache", "cache"),
    *("teacher.bundle", "teacher.classes"),  # their content is compared in `check_origin`
    *(f"int8.{field.name}" for field in fields(Int8Config)),
    *(
        f"{stage}.{field}"
        for stage in ("teacher_train", "student_train", "train")
        for field in ("workers", "log_every", "checkpoint_every")
    ),
}
"""Fields that may differ when a run is resumed: no finished training depends on them."""

MODEL_FIELDS = ("align_corners", "contract_dilation", "head", "bundle", "mean", "std", "classes")
ADDED: dict[str, object] = {
    f"{part}.{field}": _plain(getattr(section, field))
    for part, section, fields in (
        *((part, ModelConfig, MODEL_FIELDS) for part in ("teacher", "student")),
        ("data", DataConfig, ("unlabeled_share", "labels", "scale")),
        ("distill", DistillConfig, ("min_confidence", "class_weights", "unlabeled_loss", "unlabeled_aux")),
    )
    for field in fields
}
"""Fields that runs of before do not have, with the values by which they were run; `stored_settings` adds the depths."""


class Configuration(Protocol):
    """A frozen dataclass that describes a run, or other work that has a folder."""

    @property
    def out(self) -> Path:
        """The folder."""
        ...

    @property
    def resume(self) -> bool:
        """Whether to continue what was begun there."""
        ...


def claim_folder(config: Configuration, computed: dict[str, object], origin: "Origin") -> None:
    """Write `origin.json` and then `config.json` into the folder of a run whose checks have all passed.

    Before, nothing of a new run is in its folder, so that a refused command can be corrected and given again. A resumed
    run keeps both files.

    Args:
        config: configuration of the run.
        computed: settings that depend on the machine and change results: precision, number of processes.
        origin: what the run is started with.

    Raises:
        UserError: the folder already holds a run and `resume` is not set, or that run has other settings.
    """
    resumes = holds_run(config, computed)
    if not (resumes and (config.out / ORIGIN).exists()):
        write_json(config.out / ORIGIN, origin)
    if not resumes:
        write_json(config.out / SETTINGS, settings(config) | computed)


def require_resume(config: Configuration) -> None:
    """Raise `UserError` if the run's folder holds a run that is not to be resumed."""
    if (config.out / SETTINGS).exists() and not config.resume:
        raise UserError(
            f"{config.out} already holds a run; add --resume to continue it, or --out for another folder"
        )


def holds_run(config: Configuration, computed: dict[str, object]) -> bool:
    """Whether the run's folder already holds this run, which is then to be resumed.

    Args:
        config: configuration of the run.
        computed: as for `claim_folder`.

    Raises:
        UserError: as `claim_folder` does.
    """
    if not (config.out / SETTINGS).exists():
        return False
    require_resume(config)
    asked = settings(config) | computed
    stored = {name: value for name, value in ADDED.items() if name in asked} | stored_settings(config)
    different = [name for name in sorted({*asked, *stored}) if asked.get(name) != stored.get(name)]
    if different:
        name = different[0]
        raise UserError(
            f"{config.out} was started with other settings: {', '.join(different[:5])}"
            f" ({name} was {stored.get(name)}, is {asked.get(name)}); use the same, or another --out"
        )
    return True


def stored_settings(config: Configuration) -> dict[str, Any]:
    """The settings of a run that is resumed, by dotted field name, with the depths of networks of before these existed.

    Empty for a new run.

    Raises:
        UserError: their file is damaged.
    """
    path = config.out / SETTINGS
    if not (config.resume and path.exists()):
        return {}
    stored = read_record(path, dict[str, Any], RESTART)
    for part in ("teacher", "student"):
        if arch := stored.get(f"{part}.arch"):
            stored.setdefault(f"{part}.depths", list(unrecorded_depths(arch)))
    return stored


class Origin(msgspec.Struct, frozen=True):
    """Content of `origin.json`: what a run was started with, besides its settings."""

    edgedistill: str
    """Version of the package."""
    data: Fingerprint
    teacher: str = ""
    """Of a teacher that is used as it is: its digest (see `distill.distillation.ready_made.digest_of_teacher`)."""


def origin_of(splits: Splits, teacher: str = "") -> Origin:
    """What a run is started with.

    Args:
        splits: the data set.
        teacher: digest of a teacher that is used as it is.
    """
    return Origin(version("edgedistill"), fingerprint(splits), teacher)


def check_origin(folder: Path, now: Origin) -> list[str]:
    """Check that a resumed run has the same data and teacher as when it was started.

    Args:
        folder: of the run.
        now: what it is resumed with.

    Returns:
        Lines to print: of what cannot be compared, and of another version of the package.

    Raises:
        UserError: the data set or the teacher has changed since the run was started, or the file is damaged.
    """
    path = folder / ORIGIN
    if not path.exists():
        is_old = any((folder / name).exists() for name in ("teacher", "student", "stats.json"))
        return [
            f"note: {folder} does not tell which data it was started with, so they are not compared"
        ] * is_old
    before = read_record(path, Origin, RESTART)
    changes = differences(before.data, now.data)
    if changes:
        raise UserError(
            f"{folder}: the data have changed since this run was started: {'; '.join(changes)};"
            " restore them, or start anew with another --out"
        )
    if before.teacher != now.teacher:
        raise UserError(
            f"{folder}: was started with another teacher (--teacher.bundle, or the map --teacher.classes); give the"
            " same, or start anew with another --out"
        )
    if before.edgedistill != now.edgedistill:
        return [f"note: {folder} was started by edgedistill {before.edgedistill}, this is {now.edgedistill}"]
    return []


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep other processes from running in a run's folder within the block, and remove what killed ones have left.

    The folder is created; if the block leaves it empty, as a refused run does, it is removed. The lock is the system's
    and ends with the process. Only the first process of a distributed run takes it.

    Raises:
        UserError: a run is at work there, or the folder cannot be created.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with named_write_errors(folder, folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not acquire(descriptor, PATIENCE):
            raise UserError(
                f"{folder}: another process is running there; wait for it, or choose another --out"
            )
        remove_leftovers(folder)
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):
            for each in made:
                each.rmdir()


def settings(config: Configuration) -> dict[str, object]:
    """The configuration as JSON values by dotted field name, without the fields in `FREE`."""
    nested = msgspec.to_builtins(config, enc_hook=_path)
    return {name: value for name, value in _flatten(nested) if name not in FREE}


def _path(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot store a {type(value).__name__}")


def _flatten(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, _plain(value)))
    return flat
