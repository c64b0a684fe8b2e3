"""Images without labels, which the student learns from through its teacher."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.errors import UserError
from distill.data.datasets.image_folder import ImageFiles, find_images, read_files
from distill.data.datasets.pairs import check_image
from distill.data.order import Order
from distill.data.readers import Changed, Joined, Subset
from distill.data.sample import Sample, unlabeled_sample, without_labels
from distill.data.splits import Reader, Splits
from distill.data_config import DataConfig


@dataclass(frozen=True)
class ImageReader:
    """Images without labels; each must have the `channels`, and be uint8 if and only if `optical`."""

    images: tuple[ImageFiles, ...]
    channels: tuple[str, ...]
    optical: bool
    group: str = "unlabeled"
    """Before the name of each image, beside those of other folders and images with labels."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of each image."""
        return [f"{self.group}/{image.name}" for image in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files of an image."""
        return self.images[index].paths

    def __getitem__(self, index: int) -> Sample:
        files = self.images[index]
        image = read_files(files)
        names = self.channels if len(files.paths) == 1 else None  # else the folders have the names
        check_image(image, files.paths[0], len(self.channels), self.optical, names)
        return unlabeled_sample(image, f"{self.group}/{files.name}")


def with_unlabeled(splits: Splits, config: DataConfig) -> Splits:
    """The data set with the images without labels that the configuration names.

    Args:
        splits: with all of its channels.
        config: `unlabeled` adds a folder's images, `labels` takes the labels of training images away.

    Raises:
        UserError: the folder has no image or is not laid out as `find_images` says, or there are no more training
            images than `labels` keeps.
    """
    train, parts = splits.train, list[Reader]()
    if config.labels:
        kept, others = _chosen(train.ids, config.labels)
        parts.append(Changed(Subset(train, others), without_labels))
        train = Subset(train, kept)
    if config.unlabeled is not None:
        images = find_images(config.unlabeled, splits.channels)
        parts.append(ImageReader(images, splits.channels, splits.optical))
    if not parts:
        return splits
    return replace(splits, train=train, unlabeled=parts[0] if len(parts) == 1 else Joined(tuple(parts)))


def order_of(splits: Splits, config: DataConfig) -> Order:
    """The order in which a distilled student sees the training images, with labels and without."""
    others = 0 if splits.unlabeled is None else len(splits.unlabeled)
    return Order(len(splits.train), others, config.unlabeled_share)


def check_batch(name: str, batch_size: int, order: Order) -> None:
    """Check that batches have images of both kinds, if there are both.

    Args:
        name: of the training, as on the command line.
        batch_size: images in a batch.
        order: which ones these are.

    Raises:
        UserError: the share leaves no image, or all images, without labels.
    """
    if order.unlabeled and not 0 < order.unlabeled_of(batch_size) < batch_size:
        raise UserError(
            f"--data.unlabeled-share {order.share:g}: is {order.unlabeled_of(batch_size)} of the {batch_size} images of"
            f" a batch; give another share, or --{name}.batch-size"
        )


def _chosen(ids: Sequence[str], count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The indices of the `count` names with the lowest hashes, and of all others."""
    if count >= len(ids):
        raise UserError(
            f"--data.labels {count}: the training split has {len(ids)} images; give fewer, or 0 to use all labels"
        )
    by_hash = sorted(range(len(ids)), key=lambda index: hashlib.sha256(ids[index].encode()).digest())
    return tuple(sorted(by_hash[:count])), tuple(sorted(by_hash[count:]))
