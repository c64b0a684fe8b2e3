"""What a data set consists of, cheaply: a run that is resumed compares it, so that no training mixes two data sets."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache

import msgspec

from deploy.files.atomic import sha256_file
from distill.data.splits import Reader, Splits, files_of

IMAGE_BYTES, LABEL_BYTES = 2**26, 2**28
"""Bytes of images, and of label files, of a split that are read; of larger ones evenly spread files. Sizes of all."""
SHOWN = 3
"""Names that a difference lists."""


class SplitFingerprint(msgspec.Struct, frozen=True):
    """The samples of a split."""

    ids: list[str]
    """In order."""
    sizes: list[list[int]]
    """Bytes of the files of each sample; empty lists where samples are generated."""
    digests: dict[str, str]
    """SHA-256 of some files, by id and position: "0016E5_00390 1" is the second file of that sample."""


class Fingerprint(msgspec.Struct, frozen=True):
    """A data set."""

    classes: list[str]
    """Names, with their colors as in "water #1f77b4"."""
    channels: list[str]
    splits: dict[str, SplitFingerprint]
    """By "train", "val", "test" if that is a split of its own, and "unlabeled" if there are such images."""


def fingerprint(splits: Splits) -> Fingerprint:
    """Describe a data set: names and sizes of all its files, and the content of as many as can be read in a moment."""
    readers = {"train": splits.train, "val": splits.val, "test": splits.test}
    if splits.tested_on == "val":
        del readers["test"]
    if splits.unlabeled is not None:
        readers["unlabeled"] = splits.unlabeled
    return Fingerprint(
        classes=["{} #{:02x}{:02x}{:02x}".format(one.name, *one.color) for one in splits.classes],
        channels=list(splits.channels),
        splits={name: _of_split(reader) for name, reader in readers.items()},
    )


def digest_of(reader: Reader) -> str:
    """SHA-256 of the description of one split."""
    return hashlib.sha256(msgspec.json.encode(_of_split(reader), order="sorted")).hexdigest()


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What has changed, in words; empty for equal data."""
    return list(_differences(before, now))


def _differences(before: Fingerprint, now: Fingerprint) -> Iterator[str]:
    for what in ("classes", "channels"):
        old, new = getattr(before, what), getattr(now, what)
        if old != new:
            yield f"{what} were {', '.join(old) or 'none'}, are {', '.join(new) or 'none'}"
    for name in dict.fromkeys((*before.splits, *now.splits)):
        nothing = SplitFingerprint([], [], {})
        yield from _of_splits(name, before.splits.get(name, nothing), now.splits.get(name, nothing))


def _of_splits(name: str, before: SplitFingerprint, now: SplitFingerprint) -> Iterator[str]:
    old, new = (dict(zip(each.ids, each.sizes, strict=True)) for each in (before, now))
    resized = {one for one in old.keys() & new.keys() if old[one] != new[one]}
    both = before.digests.keys() & now.digests.keys()
    edited = {key.rpartition(" ")[0] for key in both if before.digests[key] != now.digests[key]}
    changes = {
        "added": [one for one in now.ids if one not in old],
        "removed": [one for one in before.ids if one not in new],
        "changed": [one for one in now.ids if one in resized | edited],
    }
    for verb, names in changes.items():
        if names:
            more = ", …" if len(names) > SHOWN else ""
            yield f"{len(names)} of {name} {verb} ({', '.join(names[:SHOWN])}{more})"
    if not any(changes.values()) and before.ids != now.ids:
        yield f"{name} is in another order"


def _of_split(reader: Reader) -> SplitFingerprint:
    ids = list(reader.ids)
    files = [files_of(reader, index) for index in range(len(reader))]
    sizes = [[path.stat().st_size for path in paths] for paths in files]
    digests: dict[str, str] = {}
    digest = cache(sha256_file)  # a table of all labels is a file of every sample
    for position in range(max(map(len, files), default=0)):
        limit = IMAGE_BYTES if position == 0 else LABEL_BYTES
        there = [index for index, paths in enumerate(files) if len(paths) > position]
        total = sum(sizes[index][position] for index in there)
        for index in _spread(there, limit / total if total else 1):
            digests[f"{ids[index]} {position}"] = digest(files[index][position])
    return SplitFingerprint(ids, sizes, digests)


def _spread(items: Sequence[int], share: float) -> list[int]:
    """Evenly spread items, about this share of them; at least one."""
    count = max(1, min(len(items), int(len(items) * share))) if items else 0
    return [items[position * len(items) // count] for position in range(count)]
