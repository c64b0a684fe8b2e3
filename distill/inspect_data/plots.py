"""The plots of an inspection, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.inspect_data.numbers import Summary
from distill.inspect_data.survey import SHARES, SplitSurvey
from distill.reporting.figures import panels, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 24
"""Largest number of channels that are drawn."""


def write_plots(out: Path, splits: Sequence[SplitSurvey]) -> list[Path]:
    """Draw the plots of an inspection.

    Args:
        out: folder for channels.png, and classes.png and tiles.png, or grasps.png.
        splits: what was found in each split.

    Returns:
        The paths of the plots.
    """
    figures = {"channels.png": _histograms([(one.split, one.channels) for one in splits])}
    if splits[0].classes:
        figures |= {"classes.png": _classes(splits), "tiles.png": _tiles(splits)}
    else:
        figures["grasps.png"] = _histograms([(one.split, one.grasps or {}) for one in splits])
    for file, figure in figures.items():
        save(figure, out / file)
    return [out / file for file in figures]


def _histograms(groups: Sequence[tuple[str, dict[str, Summary | None]]]) -> "Figure":
    """One panel per name: the density of its numbers in each split."""
    names = list(groups[0][1])[:MOST_PANELS]
    figure, all_axes = panels(len(names))
    for axes, name in zip(all_axes, names, strict=True):
        for split, summaries in groups:
            if (it := summaries[name]) is not None:
                edges = it.first + it.width * np.arange(len(it.histogram) + 1)
                axes.stairs(np.array(it.histogram) / (it.count * it.width), edges, label=split)
        axes.set(title=name, ylabel="density")
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def _classes(splits: Sequence[SplitSurvey]) -> "Figure":
    """Share of each class in the valid pixels of each split, on a logarithmic scale."""
    figure, (axes,) = panels(1)
    names = [it.name for it in splits[0].classes]
    figure.set_size_inches(7, 1.5 + 0.35 * len(names))
    height = 0.8 / len(splits)
    for number, one in enumerate(splits):
        shares = [it.share or 0.0 for it in one.classes]
        axes.barh(
            np.arange(len(names)) + (number - (len(splits) - 1) / 2) * height, shares, height, label=one.split
        )
    smallest = min((it.share for one in splits for it in one.classes if it.share), default=1.0)
    axes.set_xscale("log")
    axes.set(xlim=(smallest / 2, 1.2), xlabel="share of valid pixels")
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    return figure


def _tiles(splits: Sequence[SplitSurvey]) -> "Figure":
    """How many tiles have which share of each class: columns are shares, the first is for tiles without the class."""
    from matplotlib.colors import PowerNorm  # optional dependency

    figure, all_axes = panels(len(splits))
    names = [it.name for it in splits[0].classes]
    figure.set_size_inches(5 * len(splits), 1.5 + 0.35 * len(names))
    for axes, one in zip(all_axes, splits, strict=True):
        tiles = np.array([it.tiles for it in one.classes])
        shown = axes.imshow(tiles / max(1, tiles[0].sum()), aspect="auto", norm=PowerNorm(0.4, 0, 1))
        figure.colorbar(shown, ax=axes, label="share of tiles")
        axes.set_yticks(np.arange(len(names)), names)
        axes.set_xticks([0, SHARES // 2, SHARES], ["none", "50 %", "100 %"])
        axes.set(title=one.split, xlabel="share of the tile's valid pixels")
    return figure
