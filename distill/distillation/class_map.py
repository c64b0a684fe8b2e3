"""The classes of a teacher in terms of those of its student: `--teacher.classes map.json`.

    {"car": "vehicle", "truck": "vehicle", "road": "road", "sky": null}

Each class of the teacher becomes a class of the data, or void. Classes that become the same one are added: the
probability of a class is the sum of those that it consists of, so its score is the log-sum-exp of theirs (as in
Bevandić et al., WACV 2022, arXiv:2108.11224). Where void is likelier than any class of the data, the pixel does not
count for the distillation; elsewhere the probabilities of the others are scaled to a sum of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deploy.errors import UserError, did_you_mean
from deploy.files.json_files import one_line, read_json

OTHERS = "*"
"""Key that stands for all classes of the teacher that are not named."""
UNSEEN = 30.0
"""How far the score of a class that the teacher does not have is below its largest one. Finite, so that a cache may
store it; distillation leaves such classes out altogether."""
SHOWN = 5


@dataclass(frozen=True)
class ClassMap:
    """For each class of a teacher the index of a class of the data, or None for void."""

    targets: tuple[int | None, ...]
    outputs: int
    """Number of the data's classes."""

    @property
    def known(self) -> tuple[int, ...]:
        """Classes of the data that the teacher has, in ascending order."""
        return tuple(sorted({target for target in self.targets if target is not None}))

    @property
    def has_void(self) -> bool:
        """Whether a class of the teacher is void."""
        return None in self.targets

    @property
    def changes_nothing(self) -> bool:
        """Whether the teacher has the classes of the data in their order."""
        return self.targets == tuple(range(self.outputs))


def mapped(logits: Tensor, classes: ClassMap) -> Tensor:
    """The scores of the data's classes by a teacher with others.

    Args:
        logits: the teacher's, floating N×T×h×w.
        classes: its classes.

    Returns:
        N×K×h×w, where the softmax over the classes that the teacher knows has the sums of its probabilities, scaled to
        one without void; classes that it does not have are far below all others. `logits` itself if nothing changes.
    """
    if classes.changes_nothing:
        return logits
    maps = {target: _sum(logits, classes, target) for target in classes.known}
    unseen = torch.stack(list(maps.values())).amax(0) - UNSEEN
    return torch.stack([maps.get(index, unseen) for index in range(classes.outputs)], 1)


def void_margin(logits: Tensor, classes: ClassMap) -> Tensor:
    """How far the score of void is above that of the likeliest class of the data: N×1×h×w; > 0 where void wins."""
    best = torch.stack([_sum(logits, classes, target) for target in classes.known]).amax(0)
    return (_sum(logits, classes, None) - best).unsqueeze(1)


def read_class_map(path: Path, theirs: Sequence[str], outputs: int, ours: Sequence[str]) -> ClassMap:
    """Read a file that maps the classes of a teacher.

    Args:
        path: a JSON object of strings and nulls. `"*"` stands for classes that it does not name; classes that it does
            not name and that the data has, too, are these.
        theirs: names of the teacher's classes; empty where they are not known: then the file has all of them in order.
        outputs: how many they are.
        ours: names of the data's classes.

    Raises:
        UserError: the file cannot be read, names a class that does not exist, or leaves one out.
    """
    written = written_classes(path)
    if not theirs:
        theirs = tuple(written)
        if len(theirs) != outputs or OTHERS in written:
            raise UserError(
                f"--teacher.classes {path}: names {len(theirs)} classes, the teacher has {outputs} without names; name"
                " all of them in their order"
            )
    _check_names(path, written, theirs, ours)
    targets = tuple(_target(path, name, written, ours) for name in theirs)
    return _usable(ClassMap(targets, len(ours)), f"--teacher.classes {path}")


def written_classes(path: Path) -> dict[str, str | None]:
    """What the file of `--teacher.classes` says, in its order.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_json(path, dict[str, str | None])
    except OSError as error:
        raise UserError(
            f"--teacher.classes {path}: cannot be read ({error.strerror or one_line(error)})"
        ) from error
    except ValueError as error:
        raise UserError(
            f"--teacher.classes {path}: {one_line(error)}; write"
            ' {"a class of the teacher": "a class of the data", "another": null}'
        ) from error


def same_classes(source: str, theirs: Sequence[str], outputs: int, ours: Sequence[str]) -> ClassMap:
    """The map of a teacher that has the classes of the data, by name in any order, or without names in theirs.

    Raises:
        UserError: it has others.
    """
    if not theirs and outputs == len(ours):
        return ClassMap(tuple(range(outputs)), outputs)
    if sorted(theirs) != sorted(ours):
        names = f" ({_some(theirs)})" if theirs else ""
        raise UserError(
            f"{source}: has {outputs} classes{names}, the data has {len(ours)} ({_some(ours)}); say which are which:"
            ' --teacher.classes map.json with {"a class of the teacher": "a class of the data", "another": null}'
        )
    return ClassMap(tuple(list(ours).index(name) for name in theirs), len(ours))


def lines_of(classes: ClassMap, ours: Sequence[str]) -> list[str]:
    """What is worth saying of a map: the classes of the data that the teacher does not have."""
    unknown = [name for index, name in enumerate(ours) if index not in classes.known]
    if not unknown:
        return []
    return [
        f"warning: no class of the teacher is {', '.join(unknown)}: these are learned from labels alone, and pixels"
        " labeled so do not count for the distillation"
    ]


def _sum(logits: Tensor, classes: ClassMap, target: int | None) -> Tensor:
    """The score of all classes of the teacher that become one: N×h×w."""
    members = [index for index, one in enumerate(classes.targets) if one == target]
    return logits[:, members[0]] if len(members) == 1 else torch.logsumexp(logits[:, members], 1)


def _target(path: Path, name: str, written: Mapping[str, str | None], ours: Sequence[str]) -> int | None:
    if name in written:
        target = written[name]
    elif name in ours:
        target = name
    elif OTHERS in written:
        target = written[OTHERS]
    else:
        raise UserError(
            f"--teacher.classes {path}: says nothing of the teacher's class {name!r}; give it a class of the data or"
            f' null, or add "{OTHERS}": null for all others'
        )
    return None if target is None else list(ours).index(target)


def _check_names(
    path: Path, written: Mapping[str, str | None], theirs: Sequence[str], ours: Sequence[str]
) -> None:
    for name, target in written.items():
        if name != OTHERS and name not in theirs:
            raise UserError(
                f"--teacher.classes {path}: the teacher has no class {name!r}{did_you_mean(name, theirs)}; it has"
                f" {_some(theirs)}"
            )
        if target is not None and target not in ours:
            raise UserError(
                f"--teacher.classes {path}: the data has no class {target!r}{did_you_mean(target, ours)}; it has"
                f" {_some(ours)}"
            )


def _usable(classes: ClassMap, source: str) -> ClassMap:
    if len(classes.known) < 2:
        raise UserError(
            f"{source}: leaves the teacher {len(classes.known)} of the data's {classes.outputs} classes, from which"
            " nothing can be learned; map its classes to two or more"
        )
    return classes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
