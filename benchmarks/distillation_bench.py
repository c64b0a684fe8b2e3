"""The trainings of one `benchmarks/distillation.py`: each student trained within the budget, scored and reported."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import nn

from benchmarks.distillation_costs import Cost, measure_costs
from benchmarks.distillation_methods import PLAIN
from benchmarks.distillation_students import StudentFactory
from benchmarks.leaderboard import Result, draw, table, to_markdown
from deploy.errors import UserError
from deploy.files.atomic import atomic_write, write_json
from deploy.measure.machine import describe, summary
from deploy.tasks.registry import task_named
from distill.config import RunConfig
from distill.pipeline.pipeline import test_scores
from distill.pipeline.prepare import check_networks
from distill.pipeline.stages import Trained
from distill.pipeline.validation import check_config
from distill.run_context import RunContext
from distill.training.loop import train


@dataclass(frozen=True)
class Budget:
    """What each training is given.

    Raises:
        UserError: it is not above 0.
    """

    seconds: float
    """For its steps and the teacher's inference."""
    steps: int | None = None
    """Steps, whatever they cost, in place of seconds."""

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise UserError(f"--seconds {self.seconds}: must be above 0")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"--steps {self.steps}: must be above 0")

    def steps_at(self, cost: Cost) -> int:
        """The steps of a method of that cost."""
        return int((self.seconds - cost.share) / cost.step) if self.steps is None else self.steps


@dataclass(frozen=True)
class Bench:
    """A student configuration, a teacher and a budget."""

    context: RunContext
    teacher: Trained
    budget: Budget
    name: Literal["leaderboard", "screening"] = "leaderboard"
    """Of its reports; each has trainings of its own."""
    part: float = 1.0
    """Of the budget's steps that are taken."""

    @property
    def folder(self) -> Path:
        """The folder of the benchmark."""
        return self.context.config.out

    @cached_property
    def students(self) -> StudentFactory:
        """Prepares the students."""
        return StudentFactory(self.context, self.teacher, self.folder)

    def costs(self, runs: Mapping[str, RunConfig]) -> dict[str, Cost]:
        """The cost of each run: read from `costs.json`, measured and added there for runs that it does not list."""
        path = self.folder / "costs.json"
        known = (
            {k: Cost(**v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
            if path.exists()
            else {}
        )
        wanted = {name: run for name, run in runs.items() if name not in known}
        if wanted:
            reference = next(iter(runs))
            reference_step = known[reference].step if reference in known else None
            measured = measure_costs(self.students, {reference: runs[reference]} | wanted, reference_step)
            known |= {name: measured[name] for name in wanted}
        write_json(path, {name: asdict(cost) for name, cost in known.items()})
        return known

    def folder_of(self, name: str, seed: int) -> Path:
        """The folder of one training."""
        runs = "runs" if self.name == "leaderboard" else self.name
        return self.folder / runs / f"{_slug(name)}-{seed}"

    def result(self, name: str, run: RunConfig, seed: int, cost: Cost) -> Result:
        """Train one student and score it on the test split, or read the result of an earlier call.

        Args:
            name: the method.
            run: its configuration.
            seed: seed of the first weights and of the data order.
            cost: cost of the method, which sets the number of steps.

        Returns:
            The score and the validation curve, as also written to `result.json`.

        Raises:
            UserError: the stored result is of another method or has another number of steps, or the budget is below the
                cost of one step.
        """
        folder = self.folder_of(name, seed)
        path = folder / "result.json"
        steps = int(self.part * self.budget.steps_at(cost))
        if path.exists():
            result = Result(**json.loads(path.read_text(encoding="utf-8")))
            if (result.name, result.loss) != (name, run.distill.loss):
                raise UserError(f"{path}: is of {result.name} ({result.loss}); use another --folder")
            if result.steps != steps:
                raise UserError(
                    f"{path}: has {result.steps} steps, but the budget allows {steps}; use another --folder"
                )
            return result
        if steps < 1:
            raise UserError(
                f"{name}: the budget is not enough for one step after {cost.share:.0f} s for the teacher's outputs;"
                " raise --seconds or --steps, or lower --distill.views"
            )
        network = self._train(run, folder, seed, steps, name == PLAIN)
        log = [
            json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        key = f"val_{task_named(self.context.splits.task).metric.key}"
        curve = [(cost.share + line["step"] * cost.step, line[key]) for line in log if key in line]
        score = test_scores(self.context, network)[0]
        result = Result(name, run.distill.loss, seed, steps, cost.share, score, curve)
        write_json(path, result)
        return result

    def report(self, runs: Mapping[str, RunConfig], seeds: Sequence[int], baseline: str) -> None:
        """Print the table over all results so far and write them as JSON, Markdown and PNG.

        Args:
            runs: configurations by method.
            seeds: seeds of the trainings.
            baseline: the method that gains are measured against.
        """
        stored = [self.folder_of(name, seed) / "result.json" for name in runs for seed in seeds]
        results = [Result(**json.loads(path.read_text(encoding="utf-8"))) for path in stored if path.exists()]
        teacher = test_scores(self.context, self.teacher.network)[0]
        machine = describe()
        rows = table(results, baseline, teacher)
        print(rows, summary(machine), sep="\n")
        about = {"machine": machine, **asdict(self.budget), "teacher_score": teacher}
        write_json(self.folder / f"{self.name}.json", {**about, "results": results})
        with atomic_write(self.folder / f"{self.name}.md", "w") as file:
            file.write(to_markdown(results, baseline, teacher))
        draw(results, teacher, self.folder / f"{self.name}.png")

    def _train(self, run: RunConfig, folder: Path, seed: int, steps: int, plain: bool) -> nn.Module:
        """A student trained by `run` in `folder`; it is validated five times."""
        network, stage, distillation = self.students.prepare(run, folder.name, seed, plain)
        training = replace(
            run.student_train,
            steps=steps,
            warmup=min(run.student_train.warmup, steps // 10),
            eval_every=max(1, steps // 5),
            log_every=50,
            checkpoint_every=500,
        )
        stage = replace(stage, folder=folder)
        train(network, stage, training, self.context.accelerator, distillation=distillation, resume=True)
        return network.eval()


def check_method(run: RunConfig, context: RunContext) -> None:
    """Find mistakes in a method before anything is trained.

    Args:
        run: configuration of the method.
        context: the run's data and device.

    Raises:
        UserError: a field of the configuration is wrong, or the loss does not fit the networks.
    """
    if not run.distill.weight:  # learns from labels alone, beside others that learn from images without any
        run = replace(run, data=replace(run.data, unlabeled=None))
    check_config(run, context.accelerator.num_processes)
    context = context.with_config(run)
    check_networks(run, context.splits, context.task, context.terms)


def _slug(name: str) -> str:
    """A folder name for a method; capitals stay, as they tell the method "MSE" from the loss "mse"."""
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")
