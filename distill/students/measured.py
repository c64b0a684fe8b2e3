"""Students timed untrained: those of a command line, or those among which a run would choose."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from deploy.backends.engine import PRECISIONS
from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.files.json_output import print_json
from deploy.measure.command import say, subjects_of, table
from deploy.measure.machine import summary
from deploy.measure.timing import measure_bundles
from distill import run as command
from distill.export_config import ExportConfig
from distill.pipeline.depths import with_depths
from distill.pipeline.resolution import with_detail
from distill.pipeline.student_choice import candidates_of, target_of
from distill.selection.untrained import Target, Untrained, segmentation_target, write_candidates
from distill.tasks.registry import open_splits, task_of
from student.candidates import FAMILIES, members_named
from student.zoo import STUDENTS, build_network

SECONDS = 1.0
"""About how long each form of each student is timed."""

Found = tuple[list[Untrained], Target]
"""Networks, and what they are exported for."""


def of_names(names: Sequence[str], size: tuple[int, int], channels: int, classes: int, int8: bool) -> Found:
    """The networks of some names, or all students that can be built for the image; of the others a line says why.

    Args:
        names: see `student.candidates.members_named`; none: all students.
        size: height and width of the input.
        channels: channels of the image.
        classes: number of classes.
        int8: export in INT8, too.

    Raises:
        UserError: a named network cannot be built.
    """
    target = segmentation_target(size, channels, classes, ExportConfig(), int8)
    texts = names or tuple(dict.fromkeys((*FAMILIES["edge"], *STUDENTS)))
    networks = []
    for arch, options in (pair for text in texts for pair in members_named(text)):
        build = partial(build_network, arch, channels, classes, **options)
        try:
            with torch.device("meta"):
                build()
        except UserError as error:
            if names:
                raise
            say(f"{arch}: left out ({str(error).removeprefix(f'{arch}: ')})")
            continue
        networks.append(Untrained(arch, options, build))
    return networks, target


def of_run(argv: Sequence[str]) -> Found:
    """The networks among which a run with `--student.max-ms` would choose.

    Args:
        argv: the preset and fields of the run.

    Raises:
        UserError: a mistake in them or in the data.
    """
    config = command.parse(argv, "edgedistill students --run")
    splits = open_splits(config.data, config.seed)
    task = task_of(config, splits)
    config, kept = with_depths(config)
    config, lines = with_detail(config, splits, task)
    for line in (*kept, *lines):
        say(line)
    return candidates_of(config, splits, task), target_of(config, splits, task)


def export(folder: Path, networks: Sequence[Untrained], target: Target, as_json: bool = False) -> None:
    """Write the networks into a folder for `edgedistill measure`; prints the folder's index if asked for JSON."""
    index = write_candidates(folder, networks, target, say)
    if as_json:
        print_json(index)
        return
    print(f"{len(networks)} candidates in {folder}; on the device: edgedistill measure {folder}")


def time_here(
    networks: Sequence[Untrained],
    target: Target,
    precision: str | None,
    output: Path | None,
    as_json: bool = False,
) -> None:
    """Time the networks on this machine, print the table, and write the measurement if asked for.

    Args:
        networks: the networks.
        target: what they are exported for.
        precision: the only one to time; None: all.
        output: the file to write.
        as_json: print the measurement instead of the table.
    """
    precisions = (precision,) if precision else PRECISIONS
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as folder:
        write_candidates(Path(folder), networks, target, say)
        measurement = measure_bundles(subjects_of(Path(folder)), None, SECONDS, say, precisions)
    if output is not None:
        write_json(output, measurement)
    if as_json:
        print_json(measurement)
        return
    print(summary(measurement.machine))
    print(table(measurement))
    if output is not None:
        print(f"written to {output}")
