"""The files of a choice by budget: which candidates a folder holds, and how fast they are on a device.

candidates.json   beside the candidates' bundles, written by `edgedistill students --export`
measured.json     written by `edgedistill measure` on the device, read by `--student.on` of a training run
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from deploy.bundle.manifest import InputSpec, OutputSpec
from deploy.errors import UserError
from deploy.files.json_files import one_line, read_json

CANDIDATES = "candidates.json"
SCHEMA_VERSION = 2
"""Version 2: `edge` networks without the option `depths` have one residual block a stage. Before, they had two."""

Option = bool | int | float | str | tuple
"""A value of a network's option; a tuple is of whole numbers, such as depths=(2, 2, 2, 2)."""
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
"""A number of things, at least one."""


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An untrained network, exported to be timed."""

    arch: str
    """Its name, such as `edge-nano` (`student.zoo`)."""
    options: dict[str, Option]
    """Its options that are not at their defaults, such as {"detail": true}."""
    parameters: Count
    macs: Count
    """Multiply-accumulates of one inference."""
    bundle: str
    """Folder of its bundle, beside the index."""

    @property
    def name(self) -> str:
        """The network with its options, as in `edge-nano:detail=True`."""
        return named(self.arch, self.options)


class Candidates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`candidates.json`."""

    candidates: tuple[Candidate, ...]
    schema_version: int = SCHEMA_VERSION


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the speed of a network depends on besides the network."""

    height: Count
    width: Count
    channels: Count
    outputs: Count
    """Maps that the network returns; in segmentation the number of classes."""
    task: str
    dtype: str
    """Of the image: uint8 or float32."""

    @classmethod
    def of(cls, spec: InputSpec, outputs: Iterable[OutputSpec], task: str) -> "Shape":
        """The shape of a bundle's network, by its input, its outputs and its task."""
        maps = next(output.shape[1] for output in outputs if output.name == "logits")
        assert isinstance(maps, int)
        return cls(spec.height, spec.width, len(spec.channels), maps, task, spec.dtype)

    @property
    def text(self) -> str:
        """In words, such as "320×320, 3 channels (uint8), 11 classes"."""
        kind = "classes" if self.task == "segmentation" else f"maps ({self.task})"
        return f"{self.height}×{self.width}, {self.channels} channels ({self.dtype}), {self.outputs} {kind}"


class Timed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Milliseconds of one inference: the engine alone, one image at a time."""

    backend: str
    precision: str
    runs: Count
    p50: Positive
    p90: Positive
    p99: Positive


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One network in all of its forms."""

    name: str
    shape: Shape
    forms: Annotated[tuple[Timed, ...], msgspec.Meta(min_length=1)]
    candidate: Candidate | None = None
    """None for a bundle that is no candidate, but a trained network."""

    def fastest(self, precisions: tuple[str, ...]) -> Timed | None:
        """The form with the smallest median among those of some precisions; None if there is none."""
        there = [form for form in self.forms if form.precision in precisions]
        return min(there, key=lambda form: form.p50, default=None)


def medians_of(rows: Iterable[Row], precisions: Iterable[str]) -> dict[tuple[str, str], float]:
    """Milliseconds of each network's fastest form in each precision that it has, as `deploy.table` compares them."""
    named_rows = [(row, precision) for row in rows for precision in precisions]
    forms = {(row.name, precision): row.fastest((precision,)) for row, precision in named_rows}
    return {key: form.p50 for key, form in forms.items() if form}


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`measured.json`."""

    machine: dict[str, object]
    """See `deploy.measure.machine.describe`; it has the versions of the installed packages."""
    threads: int | None
    """CPU threads of the engines; None: their own choice."""
    rows: Annotated[tuple[Row, ...], msgspec.Meta(min_length=1)]
    schema_version: int = SCHEMA_VERSION


Record = TypeVar("Record", Candidates, Measurement)


def named(arch: str, options: dict[str, Option]) -> str:
    """A network with its options, as in `edge-nano:detail=True`."""
    listed = ",".join(f"{name}={options[name]!r}" for name in sorted(options))
    return f"{arch}:{listed}" if listed else arch


def read_candidates(folder: Path) -> Candidates:
    """Read and check the index of a folder of candidates.

    Raises:
        UserError: it is missing, damaged, or of a newer edgedistill.
    """
    found = _read(folder / CANDIDATES, Candidates, "edgedistill students --ms HEIGHTxWIDTH --export FOLDER")
    for one in found.candidates:
        if Path(one.bundle).name != one.bundle:
            raise UserError(f"{folder / CANDIDATES}: {one.bundle!r} is not the name of a folder beside it")
    return found


def read_measurement(path: Path) -> Measurement:
    """Read and check what `edgedistill measure` wrote.

    Raises:
        UserError: the file is missing, is a folder (such as a bundle, whose receipt has the time of one network only),
            is no measurement, or is of a newer edgedistill.
    """
    if path.is_dir():
        raise UserError(
            f"{path}: is a folder, and a bundle has the time of one network only; give the file that"
            f" `edgedistill measure FOLDER` wrote on the device, FOLDER being one of candidates:"
            " edgedistill students --export FOLDER --run PRESET …"
        )
    return _read(path, Measurement, f"edgedistill measure FOLDER -o {path.name}")


def _read(path: Path, kind: type[Record], command: str) -> Record:
    try:
        raw = read_json(path, object)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it: {command}") from None
    except (IsADirectoryError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); make it again: {command}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: has schema version {version}, this edgedistill reads {SCHEMA_VERSION}; upgrade edgedistill"
        )
    try:
        found = msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {one_line(error)}; make it again: {command}") from error
    return found if found.schema_version == SCHEMA_VERSION else _of_version_1(found)


def _of_version_1(found: Record) -> Record:
    """A record of version 1 as version 2 writes it."""

    def renewed(one: Candidate) -> Candidate:
        if not one.arch.startswith("edge"):
            return one
        return msgspec.structs.replace(one, options={"depths": (2, 2, 2, 2), **one.options})

    if isinstance(found, Candidates):
        listed = tuple(renewed(one) for one in found.candidates)
        return msgspec.structs.replace(found, candidates=listed, schema_version=SCHEMA_VERSION)
    rows = []
    for row in found.rows:
        candidate = row.candidate and renewed(row.candidate)
        name = row.name if candidate is None else candidate.name
        rows.append(msgspec.structs.replace(row, name=name, candidate=candidate))
    return msgspec.structs.replace(found, rows=tuple(rows), schema_version=SCHEMA_VERSION)
