"""Prepares a run and prints its rank and world size: `python -m tests.distill.training.count_processes FOLDER`."""

import sys
from dataclasses import replace
from pathlib import Path

from distill.pipeline.prepare import prepare
from distill.presets import smoke

if __name__ == "__main__":
    context = prepare(replace(smoke(), out=Path(sys.argv[1]) / "run"))
    print(f"{context.accelerator.process_index}/{context.accelerator.num_processes}")
    context.accelerator.end_training()
