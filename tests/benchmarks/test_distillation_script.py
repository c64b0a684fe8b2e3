"""benchmarks/distillation.py and its table: equal budgets, paired statistics, and what a second call does."""

import json
from types import SimpleNamespace

import pytest
from scipy.stats import ttest_rel

from benchmarks.distillation import claimed, main
from benchmarks.distillation_bench import Bench, Budget
from benchmarks.distillation_costs import Cost
from benchmarks.distillation_methods import BASELINE, METHODS, SECOND, TRAINING, TWO, method
from benchmarks.leaderboard import Result, draw, p_value, table, to_markdown
from deploy.errors import UserError
from deploy.files.atomic import write_json
from distill.config import DistillConfig
from distill.losses.expression import parse_terms
from distill.presets import smoke
from tests.distill.tiny import RUN

FAST = [*RUN, "--data.synthetic-counts", "8", "2", "2", "--student-train.log-every", "1"]


def result(name, seed, miou, loss="kl"):
    return Result(name, loss, seed, 10, 1.5, miou, [(1.0, miou / 2), (2.0, miou)])


RESULTS = [result("no teacher", seed, miou) for seed, miou in ((0, 0.30), (1, 0.32), (2, 0.31))]
RESULTS += [result("KL", seed, miou, "kl(t=2)") for seed, miou in ((0, 0.33), (1, 0.34), (2, 0.36))]
RESULTS += [result("CWD", 1, 0.30, "cwd")]


class TestTable:
    def test_best_first_with_gain_and_paired_test(self):
        lines = table(RESULTS, "no teacher", 0.4).splitlines()
        assert [line.split("  ")[0].strip() for line in lines[2:]] == ["KL", "no teacher", "CWD"]
        expected = ttest_rel([0.33, 0.34, 0.36], [0.30, 0.32, 0.31]).pvalue
        assert lines[2].split()[1:] == [
            "10",
            "2",
            "34.33",
            "±",
            "1.53",
            "+3.33",
            f"{expected:.3f}",
            "40.00",
            "kl(t=2)",
        ]
        # the gain is over the seed that both have, not over the baseline's mean
        assert lines[4].split()[1:] == ["10", "2", "30.00", "-2.00", "40.00", "cwd"]

    def test_markdown_has_a_row_a_method(self):
        lines = to_markdown(RESULTS, "no teacher", 0.4).splitlines()
        assert len(lines) == 2 + 3
        assert len({line.count("|") for line in lines}) == 1

    def test_picture(self, tmp_path):
        draw(RESULTS, 0.4, tmp_path / "p.png")
        assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")

    def test_no_test_on_one_pair(self):
        assert p_value([0.1]) == ""
        assert p_value([0.1, 0.1]) == ""


def test_every_listed_method_is_a_configuration():
    for name, fields in METHODS.items():
        config = DistillConfig(**fields)
        assert parse_terms(config.loss), name
    assert TRAINING.keys() <= METHODS.keys()
    averaged = method("KL, EMA", smoke())
    assert (averaged.student_train.ema, averaged.distill.start, averaged.distill.loss) == (
        0.99,
        "own",
        "kl(t=2)",
    )
    assert method("hard labels", smoke()).student_train == smoke().student_train


def test_a_budget_is_seconds_or_steps():
    cost = Cost(step=0.5, share=2.0)
    assert Budget(10.0).steps_at(cost) == 16
    assert Budget(10.0, 40).steps_at(cost) == 40


def scored(monkeypatch, scores):
    """Replace the trainings by validation scores of methods; returns what is trained: (name, seed, steps)."""
    trained = []

    def result_of(bench, name, run, seed, cost):
        steps = int(bench.part * bench.budget.steps_at(cost))
        trained.append((name, seed, steps))
        path = bench.folder_of(name, seed) / "result.json"
        # the last validation is worse than the best one, and the test score misleads
        result = Result(
            name, run.distill.loss, seed, steps, 0.0, -scores[name], [(1.0, scores[name]), (2.0, 0.0)]
        )
        write_json(path, result)
        return result

    monkeypatch.setattr(Bench, "result", result_of)
    monkeypatch.setattr(Bench, "costs", lambda _, runs: {name: Cost(1.0, 3.0) for name in runs})
    monkeypatch.setattr("distill.pipeline.stages.the_teacher", lambda _: SimpleNamespace(network=None))
    monkeypatch.setattr("benchmarks.distillation_bench.test_scores", lambda *_: (0.5, {}))
    return trained


def test_a_screening_lets_the_best_five_go_on(tmp_path, monkeypatch, capsys):
    scores = {BASELINE: 0.0, "kl": 0.1, "mse": 0.7, "hard": 0.3, "dist": 0.2, "cwd": 0.6, "kl(t=4)": 0.5}
    trained = scored(monkeypatch, scores)
    methods = [name for name in scores if name != BASELINE]
    command = [*FAST, "--steps", "9", "--screen", "--seeds", "4", "5", "--folder", str(tmp_path)]
    main([*command, "--methods", *methods])
    assert trained[:7] == [(name, 4, 4) for name in scores]
    best = [BASELINE, "mse", "cwd", "kl(t=4)", "hard", "dist"]
    assert trained[7:] == [(name, seed, 9) for seed in (4, 5) for name in best]
    assert "go on to all seeds: mse, cwd, kl(t=4), hard, dist" in capsys.readouterr().out
    tables = [json.loads((tmp_path / name).read_text()) for name in ("screening.json", "leaderboard.json")]
    assert [len(table["results"]) for table in tables] == [7, 12]
    assert [table["steps"] for table in tables] == [9, 9]


def test_an_unfinished_screening_decides_nothing(tmp_path, monkeypatch):
    scored(monkeypatch, {BASELINE: 0.0, "kl": 0.1, "mse": 0.7})
    command = [*FAST, "--screen", "--seeds", "0", "--folder", str(tmp_path), "--methods", "kl", "mse"]
    with (
        claimed(tmp_path / "screening" / "kl-0"),
        pytest.raises(UserError, match="another process is training kl;"),
    ):
        main(command)


def test_a_folder_is_claimed_once(tmp_path):
    with claimed(tmp_path) as first, claimed(tmp_path) as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path) as again:
        assert again


def test_a_method_never_takes_the_results_of_another(tmp_path):
    bench = Bench(SimpleNamespace(config=SimpleNamespace(out=tmp_path)), None, Budget(10.0))
    names = [*METHODS, "mse", "kl", "dist", "kl(t=2)"]
    assert len({bench.folder_of(name, 0) for name in names}) == len(names)
    write_json(bench.folder_of("MSE", 0) / "result.json", result("MSE", 0, 0.3, "0.1*mse"))
    run = SimpleNamespace(distill=DistillConfig(loss="mse"))
    with pytest.raises(UserError, match=r"result\.json: is of MSE \(0\.1\*mse\); use another --folder"):
        bench.result("MSE", run, 0, Cost(1.0, 0.0))


@pytest.mark.slow
def test_compares_at_equal_seconds_and_resumes(tmp_path, capsys, monkeypatch):
    command = [
        *FAST,
        "--seconds",
        "2",
        "--seeds",
        "0",
        "1",
        "--methods",
        "KL",
        "feature(layer4)",
        TWO,
        "--distill.views",
        "1",
    ]
    folder = tmp_path / "bench"
    assert main([*command, "--folder", str(folder)]) == 0
    report = json.loads((folder / "leaderboard.json").read_text())
    costs = json.loads((folder / "costs.json").read_text())
    assert {(r["name"], r["seed"]) for r in report["results"]} == {
        (name, seed) for name in ("no teacher", "KL", "feature(layer4)", TWO) for seed in (0, 1)
    }
    for r in report["results"]:
        cost = costs[r["name"]]
        assert (cost["share"] > 0) == (r["name"] != "no teacher")
        spent = cost["share"] + r["steps"] * cost["step"]
        assert 2 - cost["step"] <= spent <= 2
        assert r["curve"][-1][0] == pytest.approx(spent)
    assert (folder / "leaderboard.png").exists()
    weights = [(folder / name / "best.safetensors").read_bytes() for name in ("teacher", SECOND)]
    assert weights[0] != weights[1]
    before = capsys.readouterr().out
    monkeypatch.setattr("benchmarks.distillation_bench.train", None)  # nothing is trained again
    assert main([*command, "--folder", str(folder)]) == 0
    assert capsys.readouterr().out == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seconds", "0"], "--seconds 0.0: must be above 0"),
        (["--steps", "0"], "--steps 0: must be above 0"),
        (["--methods", TWO, "--teacher-train.steps", "0"], "needs a teacher that is trained here"),
        (["--methods", "klm"], r"no loss is called klm \(did you mean kl\?\)"),
        (["--methods", "feature(layer9)"], "has no feature 'layer9'"),
    ],
)
def test_mistakes(arguments, words, tmp_path):
    with pytest.raises(UserError, match=words):
        main([*FAST, "--folder", str(tmp_path / "b"), *arguments])
