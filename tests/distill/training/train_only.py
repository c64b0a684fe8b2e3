"""`edgedistill run` without export and INT8: `python -m tests.distill.training.train_only PRESET …`.

`KILL=RANK STAGE STEP` in the environment kills that process before that step, unless torchrun has restarted it.
"""

import os
import signal
import sys
from pathlib import Path

from deploy.errors import exit_with_one_line
from distill.pipeline import pipeline
from distill.pipeline.stages import train_all
from distill.run import main
from distill.run_context import RunContext
from distill.training.loop import Training


def trainings(context: RunContext) -> Path:
    train_all(context)
    return context.config.out


def killed_at(rank: int, stage: str, step: int) -> None:
    whole = Training.step

    def dies(training: Training, number: int, batches):
        if (training.accelerator.process_index, training.stage.name, number) == (rank, stage, step):
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(training, number, batches)

    Training.step = dies


if __name__ == "__main__":
    pipeline.run_pipeline = trainings
    if "KILL" in os.environ and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
        rank, stage, step = os.environ["KILL"].split()
        killed_at(int(rank), stage, int(step))
    exit_with_one_line(lambda: main(sys.argv[1:]))
