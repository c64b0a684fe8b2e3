"""Labeled images to score a bundle on: a run's data, a labeled folder, or a split of a preset's data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bundle.manifest import Manifest
from deploy.errors import UserError, did_you_mean
from deploy.evaluation.labeled_data import DATA, other_split, read_info, require_data
from deploy.evaluation.receipt import Sample
from deploy.evaluation.samples import Samples
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
    """Reads them; those of a known number say it, see `deploy.evaluation.samples`."""


def source_of(
    given: str,
    split: str | None,
    manifest: Manifest,
    root: Path | None = None,
    foreground: int | None = None,
) -> Source:
    """Find labeled images and check that they fit a bundle.

    Args:
        given: a folder, or the name of a preset. A folder is that of a run, data written by a run, or one to train on
            (`distill.data.datasets.folder`).
        split: name of the split; None: "test", and all images of a folder that is not split.
        manifest: of the bundle.
        root: where the data of a preset lies; default as in training.
        foreground: the number in masks that means the second of two classes; masks of a run hold class ids.

    Raises:
        UserError: there is no such folder or preset, or its data does not fit the bundle.
    """
    folder = Path(given)
    if not folder.is_dir():
        return _of_preset(given, split, manifest, {"data.root": root, "data.foreground": foreground})
    name, task = split or TEST, task_of(manifest)
    if (folder / DATA / name).is_dir():
        folder = folder / DATA
    if foreground is not None and task.confusion is None:
        raise UserError(
            f"--foreground {foreground}: is for masks of classes; the bundle's task is {task.name}"
        )
    if task.confusion is None or not is_training_layout(folder, foreground):
        wanted = f"give a folder of labeled images, with {name}/images and {name}/{task.truth}"
        remedy = other_split(folder, name, task.truth) or wanted
        require_data(folder, name, truth=task.truth, remedy=remedy)
        # of data without a test split, a run writes val
        shown = read_info(folder).test if name == TEST else name
        return Source(given, shown, lambda: task.read(folder / name, manifest))
    if split is None and (folder / "images").is_dir():
        return Source(given, "all", lambda: all_labeled_samples(folder, manifest, foreground))
    require_labeled(folder, name, manifest, foreground)
    return Source(given, name, lambda: labeled_samples(folder, name, manifest, foreground))


def _of_preset(name: str, split: str | None, manifest: Manifest, fields: Mapping[str, object]) -> Source:
    """A split of a preset's data, read as in training; `fields` that are not None change its configuration."""
    from distill.run import preset  # needs the training packages, unlike folders
    from distill.tasks.registry import PRESETS, open_splits, task_of

    if name not in PRESETS:
        raise UserError(
            f"{name}: neither a folder nor a preset{did_you_mean(name, PRESETS)}; give a folder of labeled images, "
            "or one of the presets that `edgedistill presets` lists"
        )
    changes = {field: value for field, value in fields.items() if value is not None}
    if manifest.task == "segmentation":  # a run may have used some of the channels
        changes["data.channels"] = manifest.input.channels
    config = preset(name, **changes)
    splits = open_splits(config.data, config.seed)
    split = split or splits.tested_on
    if split not in ("train", "val", splits.tested_on):
        raise UserError(
            f"--split {split}: {name} has {', '.join(dict.fromkeys(('train', 'val', splits.tested_on)))}"
        )
    if splits.task != manifest.task:
        raise UserError(
            f"{name}: has labels for {splits.task}, but the task of the bundle is {manifest.task}"
        )
    _require_same_names(
        name, "classes", [one.name for one in splits.classes], [one.name for one in manifest.classes]
    )
    _require_same_names(name, "channels", list(splits.channels), manifest.input.channels)
    reader, task = getattr(splits, split), task_of(config, splits)

    def samples() -> Samples:
        arrays = (task.arrays(reader[index], splits.optical) for index in range(len(reader)))
        return Samples(arrays, len(reader))

    return Source(name, split, samples)


def _require_same_names(name: str, what: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    if list(found) != list(wanted):
        raise UserError(
            f"{name}: has the {what} {', '.join(found)}, the bundle {', '.join(wanted)}; "
            "evaluate the bundle on data of the same"
        )
