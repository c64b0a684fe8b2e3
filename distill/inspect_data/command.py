"""Inspect a data set before training: statistics of channels, labels or grasps, and what they recommend.

    edgedistill inspect PRESET [--data.root FOLDER] [--data.resize tile] [--out DIR] [--json]

It takes the options of `edgedistill run` and reads the data as a run would, in constant memory.
"""

from collections.abc import Iterator, Sequence

from deploy.errors import UserError, warnings_as_lines
from deploy.files.atomic import write_json
from deploy.files.json_output import print_json
from deploy.heartbeat import working
from distill.config import DataConfig
from distill.data.splits import Splits
from distill.data.structures import Structures, measure_structures
from distill.inspect_data.plots import write_plots
from distill.inspect_data.recommend import Seen, advise, command_of
from distill.inspect_data.recommend import lines as recommendations
from distill.inspect_data.survey import SplitSurvey, Survey
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

USAGE = "usage: edgedistill inspect PRESET [--json] [--field value …]   (fields of `edgedistill run`; results in --out)"
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
    fields = [word for word in argv if word != "--json"]
    config = parse(fields, "edgedistill inspect")
    require_matplotlib("inspect")
    splits = open_splits(config.data, config.seed)
    if splits.task not in ("segmentation", "grasp"):
        raise UserError(
            f"--data.name {config.data.name}: is for {splits.task}, inspect is for segmentation and grasp data;"
            " choose another preset"
        )
    out = config.out / FOLDER
    survey = Survey(splits, config.data.size if config.data.resize == "tile" else None)
    with working("reading the images"):
        write_csv(out / "tiles.csv", survey.header, survey.rows())
    found = survey.splits
    with working("structures of the labels"):
        structures = _structures(config.data, splits)
        advice = advise(config, Seen(splits, found, survey.thumbnails))
    command = command_of(fields, advice)
    report = {"data": splits.name, "task": splits.task, "splits": found, "remarks": list(remarks(found))}
    report |= {"structures": structures, "recommended": advice, "command": command}
    write_json(out / "inspect.json", report)
    write_tables(out, found)
    write_plots(out, found)
    if "--json" in argv:
        print_json(report)
        return 0
    print(*_tables(config.data, splits, found, structures), sep="\n\n")
    print("", *recommendations(advice, command), f"tables and plots in {out}", sep="\n")
    return 0


def _tables(
    config: DataConfig, splits: Splits, found: Sequence[SplitSurvey], structures: Structures | None
) -> Iterator[str]:
    """What was found, in words."""
    yield "\n".join(summary_lines(found))
    yield channel_table(found)
    yield grasp_table(found) if splits.task == "grasp" else class_table(found)
    if structures is not None:
        height, width = config.size
        where = f"{structures.masks} training masks at {height}×{width}"
        yield f"structures of {where}, and IoU % at best by stride:\n{structure_table(structures)}"
    notes = [f"note: {line}" for line in remarks(found)]
    if notes:
        yield "\n".join(notes)


def _structures(config: DataConfig, splits: Splits) -> Structures | None:
    """What the training labels show at network scale; None for grasps."""
    if splits.task != "segmentation":
        return None
    return measure_structures(splits.train, [info.name for info in splits.classes], config)
