"""The models of a comparison: found by path, and checked for comparability."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.find import find_bundle
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.evaluation.labeled_data import data_folder
from deploy.evaluation.receipt import Sample
from deploy.files.atomic import sha256_file
from deploy.files.images import list_images
from deploy.tasks.registry import require_classes
from distill.compare.labeled import labeled_samples, require_labeled


@dataclass(frozen=True)
class Subject:
    """One model, and the labeled data to measure it on."""

    name: str
    """Short and unique."""
    bundle: Path
    data: Path
    manifest: Manifest
    foreground: int | None = None
    """The number in masks of `data` that means the second of two classes, as in training."""

    def samples(self, split: str) -> Iterator[Sample]:
        """The labeled images of a split of `data`."""
        return labeled_samples(self.data, split, self.manifest, self.foreground)


def subjects_of(
    paths: Sequence[Path], data: Path | None, split: str, foreground: int | None = None
) -> list[Subject]:
    """Find the models of a comparison, and check that they can be compared.

    Args:
        paths: folders of bundles, or of runs, which stand for their `student.bundle`.
        data: labeled data for all models; None = the data beside each bundle.
        split: name of the split.
        foreground: see `Subject.foreground`.

    Raises:
        UserError: a path is neither a run nor a bundle, or is given twice; a bundle has no classes, or other classes
            than the first; data is missing, or its images are not the same for all.
    """
    subjects = _with_unique_names([_subject(path, data, foreground) for path in paths])
    for subject in subjects:
        require_classes(subject.manifest, subject.bundle, "compare")
        _require_same_classes(subjects[0], subject)
        require_labeled(subject.data, split, subject.manifest, foreground)
    for subject in subjects[1:]:
        _require_same_images(subjects[0], subject, split)
    return subjects


def _subject(path: Path, data: Path | None, foreground: int | None) -> Subject:
    bundle = find_bundle(path)
    manifest = read_manifest(bundle)
    name = path.resolve().name.removesuffix(".bundle")
    return Subject(name, bundle.resolve(), data or data_folder(bundle), manifest, foreground)


def _with_unique_names(subjects: Sequence[Subject]) -> list[Subject]:
    bundles, names = (Counter(getattr(one, field) for one in subjects) for field in ("bundle", "name"))
    twice = [bundle for bundle, count in bundles.items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]}: is given twice; give every model once")
    longer = [
        one if names[one.name] == 1 else replace(one, name=f"{_parent(one)}/{one.name}") for one in subjects
    ]
    if len({one.name for one in longer}) == len(longer):
        return longer
    return [replace(one, name=str(one.bundle)) for one in subjects]


def _parent(subject: Subject) -> str:
    """The folder that distinguishes models of the same name: the run of a bundle, or the parent of a run."""
    folder = subject.bundle.parent
    return folder.parent.name if folder.name == subject.name else folder.name


def _require_same_classes(first: Subject, other: Subject) -> None:
    names = [[one.name for one in subject.manifest.classes] for subject in (first, other)]
    if names[0] != names[1] or first.manifest.ignore_label != other.manifest.ignore_label:
        raise UserError(
            f"{other.name} has the classes {', '.join(names[1])}, {first.name} has {', '.join(names[0])};"
            " compare models of the same classes"
        )


def _require_same_images(first: Subject, other: Subject, split: str) -> None:
    folders = [subject.data.resolve() / split for subject in (first, other)]
    if folders[0] == folders[1]:
        return
    # Models with other channels have other images of the same places; then only the labels can be compared.
    same_channels = first.manifest.input.channels == other.manifest.input.channels
    kinds = ("images", "masks") if same_channels else ("masks",)
    one, two = (_checksums(folder, kinds) for folder in folders)
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    if different:
        raise UserError(
            f"{first.name} and {other.name} have different labeled images in {split}, such as"
            f" {different[0]}; give one --data FOLDER for all"
        )


def _checksums(folder: Path, kinds: Sequence[str]) -> dict[str, str]:
    paths = [path for kind in kinds for path in list_images(folder / kind)]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}
