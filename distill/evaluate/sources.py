"""Labeled images to score a bundle on: a run's data, a labeled folder, or a split of a preset's data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bundle.manifest import Manifest
from deploy.errors import UserError, did_you_mean
from deploy.evaluation.labeled_data import DATA, require_data
from deploy.evaluation.receipt import Sample
from deploy.tasks.registry import task_of
from distill.compare.labeled import all_labeled_samples, is_training_layout, labeled_samples, require_labeled

TEST = "test"


@dataclass(frozen=True)
class Source:
    """Labeled images that a bundle can read."""

    name: str
    """What the user gave."""
    split: str
    """"all" if the folder has no splits."""
    samples: Callable[[], Iterator[Sample]]


def source_of(given: str, split: str | None, manifest: Manifest, root: Path | None = None) -> Source:
    """Find labeled images and check that they fit a bundle.

    Args:
        given: a folder, or the name of a preset. A folder is that of a run, data written by a run, or one to train on
            (`distill.data.datasets.folder`).
        split: name of the split; None: "test", and all images of a folder that is not split.
        manifest: of the bundle.
        root: where the data of a preset lies; default as in training.

    Raises:
        UserError: there is no such folder or preset, or its data does not fit the bundle.
    """
    folder = Path(given)
    if not folder.is_dir():
        return _of_preset(given, split or TEST, manifest, root)
    if (folder / DATA / (split or TEST)).is_dir():
        folder = folder / DATA
    task = task_of(manifest)
    if task.confusion is None or not is_training_layout(folder):
        name = split or TEST
        require_data(folder, name, truth=task.truth)
        return Source(given, name, lambda: task.read(folder / name, manifest))
    if split is None and (folder / "images").is_dir():
        return Source(given, "all", lambda: all_labeled_samples(folder, manifest))
    name = split or TEST
    require_labeled(folder, name, manifest)
    return Source(given, name, lambda: labeled_samples(folder, name, manifest))


def _of_preset(name: str, split: str, manifest: Manifest, root: Path | None) -> Source:
    """A split of a preset's data, read as in training."""
    from distill.run import preset  # needs the training packages, unlike folders
    from distill.tasks.registry import PRESETS, open_splits, task_of

    if name not in PRESETS:
        raise UserError(
            f"{name}: neither a folder nor a preset{did_you_mean(name, PRESETS)}; give a folder of labeled images, "
            "or one of the presets that `edgedistill presets` lists"
        )
    changes: dict[str, object] = {"data.root": root} if root else {}
    if manifest.task == "segmentation":  # a run may have used some of the channels
        changes["data.channels"] = manifest.input.channels
    config = preset(name, **changes)
    splits = open_splits(config.data, config.seed)
    if split not in ("train", "val", "test"):
        raise UserError(f"--split {split}: {name} has train, val and test")
    if splits.task != manifest.task:
        raise UserError(
            f"{name}: has labels for {splits.task}, but the task of the bundle is {manifest.task}"
        )
    _require_same_names(
        name, "classes", [one.name for one in splits.classes], [one.name for one in manifest.classes]
    )
    _require_same_names(name, "channels", list(splits.channels), manifest.input.channels)
    reader, task = getattr(splits, split), task_of(config, splits)

    def samples() -> Iterator[Sample]:
        for index in range(len(reader)):
            yield task.arrays(reader[index], splits.optical)

    return Source(name, split, samples)


def _require_same_names(name: str, what: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    if list(found) != list(wanted):
        raise UserError(
            f"{name}: has the {what} {', '.join(found)}, the bundle {', '.join(wanted)}; "
            "evaluate the bundle on data of the same"
        )
