"""The results of an inspection: as text, as CSV files, and as remarks on what is unusual."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.table import format_table
from distill.data.structures import Quantiles, Structures
from distill.inspect_data.numbers import Summary
from distill.inspect_data.survey import ClassSurvey, SplitSurvey
from distill.reporting.csv_files import Cell, write_csv


def summary_lines(splits: Sequence[SplitSurvey]) -> list[str]:
    """One line per split: its images, their sizes, and its share of invalid pixels."""
    lines = []
    for one in splits:
        size, *others = one.sizes
        more = (
            f" and {len(others)} other sizes" if len(others) > 1 else "".join(f" and {it}" for it in others)
        )
        void = "" if one.grasps else f", {one.void:.1%} of the rest void"
        lines.append(
            f"{one.split}: {one.images} images of {size}{more}; {one.no_data:.1%} of pixels without data{void}"
        )
    return lines


def channel_table(splits: Sequence[SplitSurvey]) -> str:
    """Extremes, mean and deviation of the valid pixels of each channel, as aligned text."""
    return _numbers_table("channel", [(one.split, one.channels) for one in splits])


def grasp_table(splits: Sequence[SplitSurvey]) -> str:
    """Extremes, mean and deviation of grasps per image, sizes and angles, as aligned text."""
    return _numbers_table("grasps", [(one.split, one.grasps or {}) for one in splits])


def class_table(splits: Sequence[SplitSurvey]) -> str:
    """Each class's share of valid pixels and of images in each split, in percent, as aligned text."""
    header = ["class", *(f"{one.split} {what} %" for one in splits for what in ("pixels", "images"))]
    rows = [
        [its[0].name, *(text for one, it in zip(splits, its, strict=True) for text in _class_cells(one, it))]
        for its in zip(*(one.classes for one in splits), strict=True)
    ]
    return format_table(header, rows)


def structure_table(found: Structures) -> str:
    """Components, areas and widths of each class at network scale, and what strides allow, as aligned text."""
    strides = [f"IoU at {it.stride}" for it in found.ceilings]
    header = ("class", "components", "area px", "width px", "resized", *strides)
    rows = [
        [it.name, str(it.components), _range(it.area), _range(it.width), *map(_percent, [it.resized, *ious])]
        for it, *ious in zip(found.classes, *(one.iou for one in found.ceilings), strict=True)
    ]
    for name, scores in (
        ("mean IoU", [it.miou for it in found.ceilings]),
        ("boundary F1", [it.boundary_f1 for it in found.ceilings]),
    ):
        rows.append([name, "", "", "", "", *map(_percent, scores)])
    return format_table(header, rows)


def remarks(splits: Sequence[SplitSurvey]) -> Iterator[str]:
    """What to know before training: classes that never occur, splits with one class, images without labels."""
    for one in splits:
        present = [it.name for it in one.classes if it.pixels]
        if len(present) == 1:
            yield f"every valid pixel of {one.split} is {present[0]!r}: scores there say nothing about other classes"
        else:
            for it in one.classes:
                if not it.pixels:
                    yield f"class {it.name!r} never occurs in {one.split}"
        if one.empty:
            what = "no grasp" if one.grasps else "no valid pixel"
            yield f"{one.empty} of the {one.images} images of {one.split} have {what}"
        for name, summary in one.channels.items():
            if summary is not None and summary.min == summary.max:
                yield f"channel {name!r} of {one.split} is {summary.min:g} everywhere"


def write_tables(out: Path, splits: Sequence[SplitSurvey]) -> None:
    """Write channels.csv and classes.csv, or for grasp data channels.csv and grasps.csv, into `out`."""
    for file, groups in (
        ("channels.csv", [(one.split, one.channels) for one in splits]),
        ("grasps.csv", [(one.split, one.grasps) for one in splits if one.grasps]),
    ):
        if groups:
            header = ("split", "name", "count", "min", "max", "mean", "std")
            write_csv(out / file, header, _number_rows(groups))
    rows = [
        [one.split, it.name, it.pixels, it.share, it.images, it.images / one.images]
        for one in splits
        for it in one.classes
    ]
    if rows:
        header = ("split", "class", "pixels", "share of valid pixels", "images", "share of images")
        write_csv(out / "classes.csv", header, rows)


Groups = Sequence[tuple[str, dict[str, Summary | None]]]


def _number_rows(groups: Groups) -> Iterator[list[Cell]]:
    for split, summaries in groups:
        for name, it in summaries.items():
            yield [split, name, *((it.count, it.min, it.max, it.mean, it.std) if it else (0, *[None] * 4))]


def _numbers_table(what: str, groups: Groups) -> str:
    """A table with the splits of each name below one another."""
    rows = [
        [name, split, *(["–"] * 4 if it is None else [f"{v:.5g}" for v in (it.min, it.max, it.mean, it.std)])]
        for name in groups[0][1]
        for split, summaries in groups
        for it in [summaries[name]]
    ]
    return format_table([what, "split", "min", "max", "mean", "std"], rows)


def _class_cells(split: SplitSurvey, it: ClassSurvey) -> tuple[str, str]:
    return "–" if it.share is None else f"{100 * it.share:.2f}", f"{100 * it.images / split.images:.1f}"


def _range(values: Quantiles | None) -> str:
    """The middle value, and the outer ones in brackets."""
    if values is None:
        return "–"
    low, middle, high = (f"{value:g}" for value in values)
    return f"{middle} ({low}–{high})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
