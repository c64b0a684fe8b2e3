"""`classes.json` of a folder of your own: see `distill.data.datasets.folder`."""

from collections import Counter
from pathlib import Path

import msgspec

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from deploy.files.json_files import one_line
from deploy.visualize import palette
from distill.data.datasets.masks import Legend
from distill.data.sample import IGNORE, MAX_CLASSES


class ClassEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class in `classes.json`."""

    name: str
    color: tuple[int, int, int] | None = None
    value: int | None = None


class ClassesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`classes.json` in its long form."""

    classes: list[str | ClassEntry]
    ignore: int = IGNORE
    channels: tuple[str, ...] | None = None


def read_classes(path: Path) -> ClassesFile | None:
    """Read `classes.json`; None if there is no such file.

    Raises:
        UserError: it is not as described above, or names fewer than two classes or one twice.
    """
    if not path.is_file():
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[str | ClassEntry] | ClassesFile)
        settings = found if isinstance(found, ClassesFile) else ClassesFile(found)
        _check_classes(settings)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors too
        raise UserError(f"{path}: {one_line(error)}") from error
    return settings


def _check_classes(settings: ClassesFile) -> None:
    """Raise ValueError if there are fewer than two classes, or two with the same name, value or color."""
    classes, legend = describe_classes(settings)
    if len(classes) < 2:
        raise ValueError(f"names {len(classes)} classes; segmentation needs two or more")
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"names {len(classes)} classes; a bundle has at most {MAX_CLASSES}")
    columns = {"name": [info.name for info in classes], "value": legend.values, "color": legend.colors}
    for what, items in columns.items():
        repeated = [item for item, count in Counter(items).items() if count > 1]
        if repeated:
            raise ValueError(f"two classes have the {what} {repeated[0]}")
    if settings.ignore in legend.values and settings.ignore != IGNORE:
        raise ValueError(f"{settings.ignore} is both the value of a class and ignored")


def describe_classes(settings: ClassesFile) -> tuple[tuple[ClassInfo, ...], Legend]:
    """The classes, and how masks encode them."""
    entries = [ClassEntry(entry) if isinstance(entry, str) else entry for entry in settings.classes]
    spare = palette(len(entries))
    classes = tuple(ClassInfo(entry.name, entry.color or spare[i]) for i, entry in enumerate(entries))
    values = tuple(i if entry.value is None else entry.value for i, entry in enumerate(entries))
    colors = tuple(entry.color for entry in entries if entry.color is not None)
    return classes, Legend(
        values,
        ignore=(settings.ignore,),
        # Colored masks can be read only if every class has a color.
        colors=colors if len(colors) == len(entries) else (),
    )
