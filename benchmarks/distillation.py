"""Which distillation is best at equal cost? `python benchmarks/distillation.py PRESET --seconds S [--field value …]`.

Trains the preset's student by every method (and without a teacher) from one configuration, for as many steps as fit
into the same seconds: a method pays for its own slower steps, and for the teacher's inference, whether that happens in
every step or once for all stored views. The teacher is trained once; its training is not counted.

Seconds are made comparable on a busy machine by timing the steps of all methods in turns first (`costs.json`), and
giving each method the number of steps that its budget buys at that price. So every training is exact, and the whole is
resumed, run by run, by the same command; started twice, the two share the work. Writes `leaderboard.json`, `.md` and
`.png` into the folder of the benchmark.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository root, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import fcntl
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.leaderboard import Result, draw, table, to_markdown
from benchmarks.machine import describe, summary
from benchmarks.stepping import Stepper
from deploy.errors import UserError, exit_with_one_line
from deploy.files.atomic import atomic_write, write_json
from deploy.tasks.registry import task_named
from distill.config import DistillConfig, RunConfig
from distill.run import parse

if TYPE_CHECKING:
    from torch import nn

    from distill.data.views import View
    from distill.pipeline.stages import RunContext, Trained
    from distill.training.loop import Stage
    from distill.training.step_module import Distillation

BASELINE = "no teacher"
OWN = "the preset's"
DISTILLATION_LOSSES: dict[str, dict[str, object]] = {
    OWN: {},
    "weights and KL": {"loss": "kl(t=2)", "trust": "everywhere", "start": "teacher"},
    "weights and KL in every step": {
        "loss": "kl(t=2)",
        "trust": "everywhere",
        "start": "teacher",
        "views": 0,
    },
    "weights alone": {"weight": 0.0, "start": "teacher"},
    "KL": {"loss": "kl(t=2)", "trust": "everywhere"},
    "KL, label-aware": {"loss": "kl(t=2)", "trust": "label"},
    "KL, fading": {"loss": "kl(t=2)", "trust": "everywhere", "schedule": "cosine"},
    "KL, teacher in every step": {"loss": "kl(t=2)", "trust": "everywhere", "views": 0},
    "KL, on aux head too": {"loss": "kl(t=2)", "trust": "everywhere", "aux": "0.4*kl(t=2)"},
    "CWD": {"loss": "kl(t=1) + 3*cwd(t=4)", "trust": "everywhere"},
    "MSE": {"loss": "0.1*mse", "trust": "everywhere"},
    "DIST": {"loss": "dist", "trust": "everywhere"},
    "boundary-aware": {"loss": "boundary(t=2)", "trust": "everywhere"},
    "FitNet": {"loss": "kl(t=1) + 0.1*feature(layer4)", "trust": "everywhere"},
    "attention": {"loss": "kl(t=1) + 10*at(layer4)", "trust": "everywhere"},
    "SKD": {"loss": "kl(t=1) + 10*skd(layer4)", "trust": "everywhere"},
    "IFVD": {"loss": "kl(t=1) + 10*ifvd(layer4)", "trust": "everywhere"},
    "CIRKD": {"loss": "kl(t=1) + cirkd(head)", "trust": "everywhere"},
}
"""Fields of `DistillConfig` that make each method, on top of the preset's. Only methods that say so start from the
teacher's weights."""

WARM, TURNS = 2, 15
"""Turns of the timing: the first are not counted."""
VIEW = "the teacher, a view"


def main(argv: Sequence[str]) -> int:
    """Time, train and compare; print the table and write the reports."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/distillation.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("preset")
    parser.add_argument("--seconds", type=float, default=120, help="budget of each training (default 120)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(DISTILLATION_LOSSES),
        help="names, or loss expressions such as 'kl(t=4)'",
    )
    parser.add_argument("--folder", type=Path, help="of the benchmark (default: runs/distillation-PRESET)")
    options, fields = parser.parse_known_args(argv)
    folder = options.folder or Path("runs") / f"distillation-{options.preset}"
    config = parse([options.preset, *fields, "--out", str(folder), "--resume"])
    compare(config, options.methods, options.seeds, options.seconds)
    return 0


def compare(config: RunConfig, methods: Sequence[str], seeds: Sequence[int], seconds: float) -> None:
    """All trainings that are not there yet, then the reports over all that are."""
    from distill.pipeline.stages import prepare, train_network

    if seconds <= 0:
        raise UserError(f"--seconds {seconds}: must be above 0")
    runs = {BASELINE: replace(config, distill=replace(config.distill, weight=0.0, start="own"))}
    runs |= {name: replace(config, distill=_distill_of(name, config.distill)) for name in methods}
    context = prepare(config)
    for run in runs.values():
        _check(run, context)
    teacher = train_network(context, "teacher", config.teacher, config.teacher_train)
    bench = Bench(context, teacher, seconds)
    costs = bench.costs(runs)
    for seed in seeds:
        for name, run in runs.items():
            folder = bench.folder_of(name, seed)
            with claimed(folder) as mine:
                if not mine:
                    print(f"{name}, seed {seed}: another process is at it", flush=True)
                    continue
                result = bench.result(name, run, seed, costs[name])
            scored = f"test {task_named(context.splits.task).metric} {100 * result.score:.2f} %"
            print(f"{name}, seed {seed}: {result.steps} steps, {scored}", flush=True)
    bench.report(runs, seeds)


@dataclass(frozen=True)
class Cost:
    """What a method costs on this machine."""

    step: float
    """Seconds of a training step, loading and, where it runs in every step, the teacher included."""
    share: float
    """Seconds of the teacher's inference for all stored views; 0 where nothing is stored."""


class Bench:
    """The trainings of one benchmark: a student configuration, a teacher and a budget."""

    def __init__(self, context: "RunContext", teacher: "Trained", seconds: float) -> None:
        self.context, self.teacher, self.seconds = context, teacher, seconds
        self.folder = context.config.out

    def costs(self, runs: Mapping[str, RunConfig]) -> dict[str, Cost]:
        """The cost of each run: what `costs.json` says, and for others measured in turns."""
        path = self.folder / "costs.json"
        known = {k: Cost(**v) for k, v in json.loads(path.read_text()).items()} if path.exists() else {}
        wanted = {name: run for name, run in runs.items() if name not in known}
        if wanted:
            one = next(iter(runs))
            usual = known[one].step if one in known else None
            seconds, view = self._seconds({one: runs[one]} | wanted, usual)
            for name, run in wanted.items():
                views = run.distill.views if run.distill.weight else 0
                known[name] = Cost(step=seconds[name], share=view * views * len(self.context.splits.train))
        write_json(path, {name: asdict(cost) for name, cost in known.items()})
        return known

    def folder_of(self, name: str, seed: int) -> Path:
        """Of one training."""
        return self.folder / "runs" / f"{_slug(name)}-{seed}"

    def result(self, name: str, run: RunConfig, seed: int, cost: Cost) -> Result:
        """Train one student, unless that has been done, and score it on the test split."""
        from distill.pipeline.pipeline import test_scores

        folder = self.folder_of(name, seed)
        path = folder / "result.json"
        steps = int((self.seconds - cost.share) / cost.step)
        if path.exists():
            result = Result(**json.loads(path.read_text()))
            if result.steps != steps:
                raise UserError(
                    f"{path}: is of {result.steps} steps, the budget buys {steps}; use another --folder"
                )
            return result
        if steps < 1:
            raise UserError(
                f"{name}: {self.seconds:g} s do not buy a step after {cost.share:.0f} s for the teacher's outputs;"
                " raise --seconds or lower --distill.views"
            )
        every = max(1, steps // 5)
        network = self._train(run, folder, seed, steps, every)
        log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        key = f"val_{task_named(self.context.splits.task).key}"
        curve = [(cost.share + line["step"] * cost.step, line[key]) for line in log if key in line]
        result = Result(
            name, run.distill.loss, seed, steps, cost.share, test_scores(self.context, network)[0], curve
        )
        write_json(path, result)
        return result

    def report(self, runs: Mapping[str, RunConfig], seeds: Sequence[int]) -> None:
        """Print and write what came out."""
        from distill.pipeline.pipeline import test_scores

        stored = [self.folder_of(name, seed) / "result.json" for name in runs for seed in seeds]
        results = [Result(**json.loads(path.read_text())) for path in stored if path.exists()]
        teacher = test_scores(self.context, self.teacher.network)[0]
        machine = describe()
        rows = table(results, BASELINE, teacher)
        print(rows, summary(machine), sep="\n")
        report = {"machine": machine, "seconds": self.seconds, "teacher_score": teacher, "results": results}
        write_json(self.folder / "leaderboard.json", report)
        with atomic_write(self.folder / "leaderboard.md", "w") as file:
            file.write(to_markdown(results, BASELINE, teacher))
        draw(results, teacher, self.folder / "leaderboard.png")

    def _train(self, run: RunConfig, folder: Path, seed: int, steps: int, eval_every: int) -> "nn.Module":
        """A student trained by `run`, in `folder`, from the first weights and in the order of `seed`."""
        from distill.training.loop import train

        network, stage, distillation = self._prepared(run, folder.name, seed)
        training = replace(
            run.student_train,
            steps=steps,
            warmup=min(run.student_train.warmup, steps // 10),
            eval_every=eval_every,
            log_every=50,
            checkpoint_every=500,
        )
        stage = replace(stage, folder=folder)
        train(network, stage, training, self.context.accelerator, distillation=distillation, resume=True)
        return network.eval()

    def _prepared(
        self, run: RunConfig, name: str, seed: int
    ) -> "tuple[nn.Module, Stage, Distillation | None]":
        """A student with the first weights of a seed, what its training works on, and its distillation."""
        import torch

        from distill.distillation.build import build_distillation, init_student
        from distill.pipeline.stages import new_network, training_stage

        context = replace(self.context, config=run)
        torch.manual_seed(seed)
        network = new_network(run, context.splits, run.student)
        init_student(self.teacher.network, network, run.distill)
        distils = run.distill.weight > 0
        stage = training_stage(context, name, run.student, views=run.distill.views if distils else 0)
        stage = replace(stage, seed=seed)
        if not stage.view.views:  # stored views are those of all seeds
            stage.view.seed = seed
        if not distils:
            return network, stage, None
        run = replace(run, distill=replace(run.distill, cache=self._cache(run)))
        data = context.splits, context.stats
        return (
            network,
            stage,
            build_distillation(self.teacher.network, network, stage, run, context.accelerator, data),
        )

    def _cache(self, run: RunConfig) -> Path:
        """The folder of the teacher's outputs: one for each set of maps and number of views."""
        from distill.losses.distillation_loss import features_of
        from distill.losses.expression import parse_terms

        names = "-".join(["logits", *sorted(features_of(parse_terms(run.distill.loss)))])
        return self.folder / "teacher-cache" / f"{names}-{run.distill.views}"

    def _seconds(self, runs: Mapping[str, RunConfig], usual: float | None) -> tuple[dict[str, float], float]:
        """Seconds of a training step of each run, and of making a view and asking the teacher about it.

        All take turns with one network, as two networks of a kind can differ by a tenth in speed by where they lie in
        memory; and each is compared with the first of its own turn, so that what else the machine does falls on all
        alike. Images are decoded before, as they are in all epochs but the first. `usual` is the first one's cost where
        it is known from before, so that methods added later are comparable.
        """
        accelerator = self.context.accelerator
        network, first, _ = self._prepared(next(iter(runs.values())), "timing", seed=0)
        first.view.preload()
        clocks = {}
        for name, run in runs.items():
            _, stage, distillation = self._prepared(run, "timing", seed=0)
            stage.view.preload(first.view)
            clocks[name] = Stepper(network, stage, run.student_train, accelerator, distillation).step
        clocks[VIEW] = self._view_clock(first.view)
        turns = [{name: clock() for name, clock in clocks.items()} for _ in range(WARM + TURNS)][WARM:]
        one = next(iter(clocks))
        usual = usual or statistics.median(turn[one] for turn in turns)
        seconds = {
            name: usual * statistics.median(turn[name] / turn[one] for turn in turns) for name in clocks
        }
        return seconds, seconds.pop(VIEW)

    def _view_clock(self, view: "View") -> Callable[[], float]:
        """Times the making of a view and the teacher's answer, as the filling of a cache does both."""
        from distill.data.loader import train_batches
        from distill.distillation.teacher_cache import CHUNK_ROWS
        from distill.distillation.teachers import online_teacher
        from distill.pipeline.stages import training_stage
        from distill.training.step_module import normalized

        stage = training_stage(self.context, "timing", self.context.config.teacher)
        stage.view.preload(view)
        teach = online_teacher([self.teacher.network], self.context.accelerator)
        batches = train_batches(stage.view, CHUNK_ROWS, 0, 0, WARM + TURNS)

        def clock() -> float:
            began = time.perf_counter()
            batch = next(batches).to(self.context.accelerator.device)
            teach(batch, normalized(batch, stage.mean, stage.std, channels_last=True))
            return (time.perf_counter() - began) / CHUNK_ROWS

        return clock


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether no other process works in the folder; none will until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _distill_of(name: str, preset: DistillConfig) -> DistillConfig:
    """The distillation of a method's name, or of a loss expression."""
    if name == OWN:
        return preset
    fields: dict[str, object] = {"start": "own", **DISTILLATION_LOSSES.get(name, {"loss": name})}
    return replace(preset, **fields)  # pyright: ignore[reportArgumentType]


def _check(run: RunConfig, context: "RunContext") -> None:
    """Find mistakes in a method before anything is trained."""
    from distill.distillation.build import build_distillation_loss
    from distill.losses.expression import parse_terms
    from distill.pipeline.stages import new_network
    from distill.pipeline.validation import check_config

    check_config(run, context.accelerator.num_processes)
    teacher, student = (new_network(run, context.splits, model) for model in (run.teacher, run.student))
    build_distillation_loss(run.distill, parse_terms(run.distill.loss), teacher, student)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()


if __name__ == "__main__":
    exit_with_one_line(lambda: main(sys.argv[1:]))
