"""A data set as training sees it, whatever its task: augmented views, and statistics."""

from dataclasses import replace

from distill.config import RunConfig
from distill.data.grasp.stats import grasp_stats
from distill.data.grasp.view import GraspView
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats, images_by_class
from distill.data.train_view import TrainView

View = TrainView | GraspView


def training_view(config: RunConfig, splits: Splits, stats: Stats, views: int = 0) -> View:
    """Augmented views of the training split; `views` of each image for good, 0 = new ones in every epoch."""
    data = config.data
    if splits.task == "grasp":
        return GraspView(
            splits.train,  # pyright: ignore[reportArgumentType] - of a grasp data set it reads grasps
            size=data.size,
            channels=splits.channels,
            augment=config.augment,
            mean=stats.mean,
            seed=config.seed,
            views=views,
            cache=data.cache,
        )
    return TrainView(
        splits.train,
        size=data.size,
        resize=data.resize,
        augment=config.augment,
        mean=stats.mean,
        optical=splits.optical,
        seed=config.seed,
        views=views,
        cache=data.cache,
        normalize=data.normalize,
        class_images=images_by_class(stats),
    )


def training_stats(config: RunConfig, splits: Splits) -> Stats:
    """Statistics of the training split, over valid pixels; of depth, about the mean of each image.

    Mean 0 and deviation 1 where images or patches are normalized by their own: that is what networks see.
    """
    if splits.task == "grasp":
        return grasp_stats(splits.train, config.data.size, splits.channels)  # pyright: ignore[reportArgumentType]
    stats, count = compute_stats(splits.train, len(splits.classes)), len(splits.channels)
    if config.data.normalize == "set":
        return stats
    return replace(stats, mean=(0.0,) * count, std=(1.0,) * count, normalize=config.data.normalize)
