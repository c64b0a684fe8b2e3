"""A data set as training sees it, whatever its task: augmented views, and statistics."""

from distill.config import RunConfig
from distill.data.grasp.stats import grasp_stats
from distill.data.grasp.view import GraspView
from distill.data.splits import Splits
from distill.data.stats import Stats, compute_stats, images_by_class
from distill.data.view import TrainView

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
        class_images=images_by_class(stats),
    )


def training_stats(config: RunConfig, splits: Splits) -> Stats:
    """Statistics of the training split, over valid pixels; of depth, about the mean of each image."""
    if splits.task == "grasp":
        return grasp_stats(splits.train, config.data.size, splits.channels)  # pyright: ignore[reportArgumentType]
    return compute_stats(splits.train, len(splits.classes))
