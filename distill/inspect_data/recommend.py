"""What a data set recommends for its training, from what was measured, and the command that does it.

Each recommendation says what was measured. Those with fields are in the command; the others are for you to decide.
"""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploy.inference.tiling import windows
from distill.config import RunConfig
from distill.data.proportions import MOST, Shape, change, narrowing, proportional
from distill.data.splits import Splits
from distill.data.structures import measure_structures
from distill.inspect_data.advice import Advice
from distill.inspect_data.ranges import may_scale, range_advice
from distill.inspect_data.sizes import kept_iou
from distill.inspect_data.survey import SplitSurvey
from distill.inspect_data.twins import twin_share
from distill.overrides import with_changes
from distill.pipeline.resolution import LEAST_IOU, choice_lines, forms_of

LARGER = (1, 2, 4)
"""Pixels of sizes that are tried, relative to the configured one."""
SAME = 0.01
"""Change of proportions, as a logarithm, that does not count."""
RARE_OF_TWO = 0.2
"""Share of pixels below which a class of two is rare."""
RARE_OF_MANY = 0.02
"""The same of more classes."""
FEW_IMAGES_WITH = 0.15
"""Share of images below which crops are taken around a class."""
FEW_TO_SCORE = 30
"""Images of a split below which scores vary much."""


@dataclass(frozen=True)
class Seen:
    """What was found in a data set."""

    splits: Splits
    surveys: Sequence[SplitSurvey]
    thumbnails: Mapping[str, np.ndarray]


def advise(config: RunConfig, seen: Seen) -> list[Advice]:
    """All recommendations for a run."""
    advice = [*size_advice(config, seen)]
    if seen.splits.task == "segmentation":
        fields = next((one.fields for one in advice if one.topic == "size"), ())
        advice += [*stride_advice(_with_size(config, fields), seen), *imbalance_advice(seen.surveys[0])]
    if not seen.splits.optical and config.data.scale == "linear":
        advice += range_advice(seen.surveys[0], may_scale(config, seen.splits))
    return [*advice, *split_advice(seen)]


def command_of(argv: Sequence[str], advice: Sequence[Advice]) -> list[str]:
    """The words of `edgedistill run` with the recommended fields instead of those that were typed.

    Args:
        argv: preset and fields as they were typed for `inspect`.
        advice: the recommendations.
    """
    new = [word for one in advice for word in one.fields]
    replaced = {word for word in new if word.startswith("--")}
    kept, drop = [argv[0]], False
    for word in argv[1:]:
        if word.startswith("--"):
            drop = word.partition("=")[0].replace("_", "-") in replaced
        if not drop:
            kept.append(word)
    return ["edgedistill", "run", *kept, *new]


def lines(advice: Sequence[Advice], command: Sequence[str]) -> Iterator[str]:
    """The recommendations in words, with the command to paste."""
    yield "recommended:"
    for one in advice:
        fields = f"{shlex.join(one.fields)}: " if one.fields else ""
        yield f"  {one.topic:<10}  {fields}{one.text}"
    yield f"to paste:\n  {shlex.join(command)}"


def size_advice(config: RunConfig, seen: Seen) -> Iterator[Advice]:
    """Size of the network, whether to resize or to tile, and crop."""
    shapes = _shapes(seen.surveys[0])
    if not shapes:
        return
    shape, base = _typical(shapes), config.data.size
    spread = _spread(shapes)
    kept_as_it_is = [base] if abs(math.log(narrowing(shape, base))) < SAME else []
    larger = [proportional(shape, _times(base, by)) for by in LARGER[len(kept_as_it_is) :]]
    sizes = list(dict.fromkeys([*kept_as_it_is, *larger]))
    measured = seen.splits.task == "segmentation"
    kept = kept_iou(seen.splits.train, len(seen.splits.classes), sizes) if measured else [1.0] * len(sizes)
    fits = next((size for size, iou in zip(sizes, kept, strict=True) if iou >= LEAST_IOU), None)
    factor = narrowing(shape, base)
    images = f"images are {shape[0]}×{shape[1]}" + (" in the middle" if len(shapes) > 1 else "")
    squeezed = (
        f"; {base[0]}×{base[1]} would make all in them {change(factor)}"
        if max(factor, 1 / factor) > MOST
        else ""
    )
    if measured and (fits is None or spread > MOST**2) and min(shape) > min(base):
        reason = (
            f"proportions of images differ by {spread:.1f}×, resized all would be distorted differently"
            if fits is not None
            else f"resized to {sizes[-1][0]}×{sizes[-1][1]} the labels of a class keep {kept[-1]:.0%} IoU"
        )
        count = len(windows(*shape, base))
        text = f"{images}; {reason}. An image is {count} windows, each a pass of the network"
        yield Advice("size", text, ("--data.size", *_words(base), "--data.resize", "tile"))
        yield Advice("crop", "a crop is a window", ("--augment.crop", *_words(base)))
        return
    size = fits or sizes[-1]
    loss = (
        f"; resizing there and back keeps {kept[sizes.index(size)]:.0%} IoU of the worst class"
        if measured
        else ""
    )
    yield Advice(
        "size", f"{images}{squeezed}{loss}", ("--data.size", *_words(size), "--data.resize", "stretch")
    )
    yield from _crop_advice(config, size, base)


def _crop_advice(config: RunConfig, size: Shape, base: Shape) -> Iterator[Advice]:
    """A crop in the proportions of the size, with the share of the image that the configured one shows."""
    area = math.prod(config.augment.crop) / math.prod(base)
    shown = size if area > 0.95 else proportional(size, _times(size, area))
    text = f"{math.prod(shown) / math.prod(size):.0%} of an image; larger crops cost time in proportion"
    yield Advice("crop", text, ("--augment.crop", *_words(shown)))


def stride_advice(config: RunConfig, seen: Seen) -> Iterator[Advice]:
    """How fine outputs must be at the size of `config`: what a run decides on its own where `detail` is open."""
    splits = seen.splits
    if config.student.detail is not None:
        return
    structures = measure_structures(splits.train, [info.name for info in splits.classes], config.data)
    if structures is None:
        return
    own, counts = replace(config.student, detail=False), (len(splits.channels), len(splits.classes))
    forms = forms_of(own, *counts, config.data.size)
    for line in choice_lines("student", config.student.arch, structures, forms):
        yield Advice("stride", f"a run decides by itself, now: {line.removeprefix('detail: ')}")


def imbalance_advice(train: SplitSurvey) -> Iterator[Advice]:
    """Loss, class weights and balanced crops, from the shares of classes."""
    shares = sorted((it.share, it.name) for it in train.classes if it.share)
    if len(shares) < 2:
        return
    (least, name), (most, common) = shares[0], shares[-1]
    measured = f"{name} has {least:.2%} of the pixels, {common} {most:.0%}"
    if len(train.classes) == 2 and least < RARE_OF_TWO:
        text = f"{measured}; an overlap loss counts both alike; afterwards see `edgedistill threshold`"
        yield Advice("loss", text, ("--loss.task", "ce + dice"))
    elif len(train.classes) > 2 and least < RARE_OF_MANY:
        text = f"{measured}; weights of 1.4 to 50 by inverse log frequency"
        yield Advice("weights", text, ("--loss.class-weights", "log"))
    else:
        yield Advice("loss", f"{measured}; no class is rare")
    seldom = [(it.images / train.images, it.name) for it in train.classes if it.images]
    share, name = min(seldom)
    if share < FEW_IMAGES_WITH:
        text = f"{name} is in {share:.0%} of the images; half of the crops are taken around a class"
        yield Advice("balance", text, ("--augment.balance", "0.5"))


def split_advice(seen: Seen) -> Iterator[Advice]:
    """Whether validation and test say something."""
    for survey in seen.surveys[1:]:
        if survey.images < FEW_TO_SCORE:
            text = f"{survey.split} has {survey.images} images: small differences of its scores are chance"
            yield Advice("split", text)
        absent = [it.name for it in survey.classes if not it.pixels]
        if absent:
            text = f"{survey.split} has no pixel of {', '.join(absent)}; lay out train/, val/, test/ with all in each"
            yield Advice("split", text)
        share = twin_share(seen.thumbnails[survey.split], seen.thumbnails["train"])
        if share > 0.1:
            text = (
                f"{share:.0%} of the images of {survey.split} look like one of train (neighboring frames?):"
                " scores there are too good; lay out train/, val/ and test/ by sequence or place"
            )
            yield Advice("split", text)


def _shapes(survey: SplitSurvey) -> dict[Shape, int]:
    found = {name.partition("×")[::2]: count for name, count in survey.sizes.items()}
    return {(int(height), int(width)): count for (height, width), count in found.items()}


def _typical(shapes: Mapping[Shape, int]) -> Shape:
    """The shape of the middle image by proportions."""
    ordered = sorted(shapes, key=lambda one: (one[0] / one[1], one))
    counts = np.cumsum([shapes[one] for one in ordered])
    return ordered[int(np.searchsorted(counts, counts[-1] / 2))]


def _spread(shapes: Mapping[Shape, int]) -> float:
    """Ratio of the proportions of the 90th and the 10th percent of the images."""
    ratios = np.repeat([height / width for height, width in shapes], list(shapes.values()))
    low, high = np.quantile(ratios, (0.1, 0.9))
    return float(high / low)


def _with_size(config: RunConfig, fields: Sequence[str]) -> RunConfig:
    """With the size and the resize rule of `--data.size H W --data.resize RULE`."""
    if not fields:
        return config
    _, height, width, _, rule = fields
    return with_changes(config, {"data.size": (int(height), int(width)), "data.resize": rule})


def _times(size: Shape, factor: float) -> Shape:
    side = math.sqrt(factor)
    return max(1, round(size[0] * side)), max(1, round(size[1] * side))


def _words(size: Shape) -> tuple[str, str]:
    return str(size[0]), str(size[1])
