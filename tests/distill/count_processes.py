"""Prepares a run and prints the process and how many there are: `python -m tests.distill.count_processes FOLDER`."""

import sys
from dataclasses import replace
from pathlib import Path

from distill.presets import smoke
from distill.stages import prepare

if __name__ == "__main__":
    road = prepare(replace(smoke(), out=Path(sys.argv[1]) / "run"))
    print(f"{road.accelerator.process_index}/{road.accelerator.num_processes}")
    road.accelerator.end_training()
