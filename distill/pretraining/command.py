"""`edgedistill pretrain FOLDER… [--field value …]`: pre-train a student's backbone on images without labels."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from deploy.errors import UserError, warnings_as_lines
from distill.overrides import check_fields
from distill.pretraining.config import PretrainConfig
from distill.run_folder import require_resume

USAGE = "usage: edgedistill pretrain FOLDER… [--field value …]   (pretrain FOLDER --help lists the fields)"


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: a field or the images are unsuitable; see `distill.pretraining.pretrain.pretrain`.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    config = parse(argv)
    require_resume(config)
    from distill.pretraining.pretrain import pretrain  # start-up time: torch

    pretrain(config)
    return 0


def parse(argv: Sequence[str]) -> PretrainConfig:
    """The configuration of a command line.

    Args:
        argv: `FOLDER… [--field value …]`. tyro itself exits with code 2 on a value that it cannot read.

    Raises:
        UserError: no folder, an unknown field, or a value that a field cannot have.
    """
    import tyro  # start-up time

    folders = list(takewhile(lambda word: not word.startswith("--"), argv))
    if not folders:
        raise UserError(f"give one or more folders of images first; {USAGE}")
    fields = list(argv[len(folders) :])
    check_fields(fields, PretrainConfig, "pretrain FOLDER")
    default = PretrainConfig(tuple(map(Path, folders)))
    prog, description = "edgedistill pretrain FOLDER…", PretrainConfig.__doc__
    return tyro.cli(PretrainConfig, default=default, args=fields, prog=prog, description=description)
