"""Inspect a data set before training: statistics of channels, labels or grasps, as tables, CSV, JSON and plots.

    edgedistill inspect PRESET [--data.root FOLDER] [--data.resize tile] [--out DIR]

It takes the options of `edgedistill run` and reads the data as a run would, in one pass and constant memory.
"""

from collections.abc import Sequence

from deploy.errors import UserError, warnings_as_lines
from deploy.files.atomic import write_json
from distill.config import DataConfig
from distill.data.splits import Splits
from distill.data.structures import Structures, measure_structures
from distill.inspect_data.plots import write_plots
from distill.inspect_data.survey import Survey
from distill.inspect_data.tables import (
    channel_table,
    class_table,
    grasp_table,
    remarks,
    structure_table,
    summary_lines,
    write_tables,
)
from distill.reporting.csv_files import write_csv
from distill.reporting.figures import require_matplotlib
from distill.run import parse, preset_lines
from distill.tasks.registry import open_splits

USAGE = "usage: edgedistill inspect PRESET [--field value …]   (the options of `edgedistill run`; results in --out)"
FOLDER = "inspect"


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option or the data is unsuitable, or matplotlib is not installed.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, "", "presets:", *preset_lines(), sep="\n")
        return 0 if argv else 2
    config = parse(argv, "edgedistill inspect")
    require_matplotlib("inspect")
    splits = open_splits(config.data, config.seed)
    if splits.task not in ("segmentation", "grasp"):
        raise UserError(
            f"--data.name {config.data.name}: is for {splits.task}, inspect is for segmentation and grasp data;"
            " choose another preset"
        )
    out = config.out / FOLDER
    survey = Survey(splits, config.data.size if config.data.resize == "tile" else None)
    write_csv(out / "tiles.csv", survey.header, survey.rows())
    found, structures = survey.splits, _structures(config.data, splits)
    report = {"data": splits.name, "task": splits.task, "splits": found, "remarks": list(remarks(found))}
    write_json(out / "inspect.json", report | {"structures": structures})
    write_tables(out, found)
    write_plots(out, found)
    print(*summary_lines(found), "", channel_table(found), "", sep="\n")
    print(grasp_table(found) if splits.task == "grasp" else class_table(found), "", sep="\n")
    if structures is not None:
        height, width = config.data.size
        print(
            f"structures of {structures.masks} training masks at {height}×{width}, and IoU % at best by stride:"
        )
        print(structure_table(structures), "", sep="\n")
    print(*(f"note: {line}" for line in remarks(found)), f"tables and plots in {out}", sep="\n")
    return 0


def _structures(config: DataConfig, splits: Splits) -> Structures | None:
    """What the training labels show at network scale; None for grasps."""
    if splits.task != "segmentation":
        return None
    return measure_structures(splits.train, [info.name for info in splits.classes], config)
