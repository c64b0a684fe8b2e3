"""`benchmarks/accuracy.py`: networks trained for the same CPU time, scored, stored one by one and drawn."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import main, table
from benchmarks.accuracy_plot import Point, draw, latencies_of, points_of
from benchmarks.accuracy_training import WARM, Bench, Method, Result, compared, steps_within
from benchmarks.peer_networks import PEERS, Peer
from deploy.errors import UserError
from deploy.files.atomic import write_json

TINY = ["--data", "folder", "--size", "16", "16", "--seeds", "0"]
IMAGES = {"train": 10, "val": 2, "test": 2}


def result(name, seed, miou, arch=None):
    scores = (miou - 0.1, miou, miou / 2)
    return Result(name, arch or name, seed, 60.0, 100, 0.6, 61.0, *scores, {}, {})


def write_images(root):
    """Color images whose brighter pixels are the second class."""
    rng = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{number}.png")
            mask = (image.mean(2) > 128).astype(np.uint8)
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")


def test_steps_fill_the_budget():
    costs = {"a": 0.5, "a under t": 1.0, "t": 2.0}
    assert steps_within(60, Method("a"), costs) == (120, 0)
    # 0.4 · 60 s are 12 steps of the teacher; the other 36 s are the student's, which costs 1 s a step under it
    assert steps_within(60, Method("a", "t", 0.4), costs) == (36, 12)
    # what the teacher's last incomplete step leaves is the student's
    assert steps_within(61, Method("a", "t", 0.4), costs) == (37, 12)


@pytest.mark.parametrize("method", [Method("a"), Method("a", "t", 0.9), Method("a", "t", 0.1)])
def test_a_budget_below_one_step_is_refused(method):
    with pytest.raises(UserError, match="not enough for one step"):
        steps_within(1.5, method, {"a": 2.0, "a under t": 1.0, "t": 1.0})


def test_costs_are_relative_to_the_first_in_each_turn():
    load = iter(range(1, 1000))

    def clocks():
        turn = []

        def first():
            turn.append(next(load))  # every turn is slower than the one before
            return 2.0 * turn[-1]

        return {"first": first, "second": lambda: 3.0 * turn[-1]}

    known = compared(clocks(), reference=10.0)
    assert known == pytest.approx({"first": 10.0, "second": 15.0})
    fresh = compared(clocks(), reference=None)
    assert fresh["second"] / fresh["first"] == pytest.approx(1.5)
    assert WARM > 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two networks trained for a moment, one of them under a teacher."""
    root = tmp_path_factory.mktemp("accuracy")
    folder = root / "results"
    write_images(root / "data")
    common = [*TINY, "--root", str(root / "data"), "--minutes", "0.03", "--folder", str(folder)]
    main(["edge/4", *common])
    main(["edge/4", "--teacher", "edge/6", "--share", "0.5", *common])
    return folder, common


def test_results_have_scores_steps_and_seconds(trained):
    folder, _ = trained
    report = json.loads((folder / "accuracy.json").read_text())
    plain, taught = report["results"]
    assert (plain["name"], taught["name"]) == ("edge/4", "edge/4 under edge/6")
    assert plain["steps"] == int(plain["budget"] / plain["step_seconds"]) > 0
    assert plain["cpu_seconds"] > 0
    assert 0 <= plain["test_boundary_f1"] <= 1
    assert 0 < plain["test_miou"] < 1
    assert plain["teacher"] == {}
    teacher = taught["teacher"]
    assert teacher["steps"] * teacher["step_seconds"] <= 0.5 * taught["budget"]
    spent = teacher["steps"] * teacher["step_seconds"] + taught["steps"] * taught["step_seconds"]
    assert taught["budget"] - taught["step_seconds"] < spent <= taught["budget"]
    assert taught["cpu_seconds"] > teacher["cpu_seconds"] > 0
    assert report["machine"]["python"]


def test_what_is_there_is_not_trained_again(trained, capsys):
    folder, common = trained
    before = (folder / "edge-4-0.json").stat().st_mtime_ns
    main(["edge/4", *common])
    assert (folder / "edge-4-0.json").stat().st_mtime_ns == before
    assert "edge/4 under edge/6" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"was given 1\.8 CPU seconds; use another --folder"):
        main(["edge/4", *common, "--minutes", "0.05"])


@pytest.mark.parametrize(
    ("options", "was"),
    [
        (["--share", "0.75"], "--share 0.5"),
        (["--share", "0.5", "--loss", "mse"], r"--loss kl\(t=2\)"),
        (["--share", "0.5", "--weight", "2"], r"--weight 1\.0"),
        (["--share", "0.5", "--schedule", "cosine"], "--schedule constant"),
        (["--share", "0.5", "--start", "own", "--seeds", "1"], "--start teacher"),
    ],
)
def test_results_of_another_distillation_are_refused(trained, monkeypatch, options, was):
    _, common = trained
    monkeypatch.setattr(Bench, "costs", lambda *_: {})
    with pytest.raises(UserError, match=f"edge-4-under-edge-6-0.json: was trained with {was}; use another"):
        main(["edge/4", *common, "--teacher", "edge/6", *options])


def test_costs_under_a_teacher_are_kept_with_its_results_only(tmp_path, monkeypatch):
    known = {"a": 1.0, "t": 2.0, "a under t": 3.0}
    write_json(tmp_path / "costs.json", known)
    monkeypatch.setattr(Bench, "_stepper", lambda *_: lambda: 1.0)
    bench = Bench(SimpleNamespace(config=SimpleNamespace(out=tmp_path)), 60)
    assert bench.costs([Method("a", "t", 0.5)])["a under t"] == 1.0
    write_json(tmp_path / "costs.json", known)
    write_json(tmp_path / "a-under-t-0.json", asdict(result("a under t", 0, 0.3, "a")))
    assert bench.costs([Method("a", "t", 0.5)]) == known


def test_missing_packages_are_named(trained, capsys, monkeypatch):
    _, common = trained
    name = "ultralytics YOLO26n-sem"
    monkeypatch.setitem(PEERS, name, Peer("no_such_package", "ultralytics", PEERS[name].build))
    main([name, "edge/4", *common])
    assert f"{name}: left out, needs pip install ultralytics" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--minutes", "0"], "--minutes 0: must be above 0"), (["--picture", "a.svg"], "needs --latencies")],
)
def test_mistakes_get_one_line(options, message):
    with pytest.raises(UserError, match=message):
        main(options)


def test_the_table_has_means_and_deviations():
    lines = table([result("edge", 0, 0.30), result("edge", 1, 0.34), result("yolo", 0, 0.2)]).splitlines()
    assert "32.00 ± 2.83" in lines[2]
    assert lines[3].split() == ["yolo", "1", "100", "61", "10.00", "20.00", "10.00"]


def test_points_and_picture(tmp_path):
    rows = [{"name": "edge", "ms": {"a fp32": 1.0, "a int8": 3.0, "b int8": 2.0}}]
    peers_json = tmp_path / "peers.json"
    peers_json.write_text(json.dumps({"rows": rows}))
    results = [result("edge under t", 0, 0.3, "edge"), result("edge under t", 1, 0.4, "edge")]
    results.append(result("other", 0, 0.3))  # has no latency
    [point] = points_of(results, latencies_of(peers_json), {"other": None})
    assert point == Point("edge under t", 2.0, pytest.approx(35.0), pytest.approx(7.0711, abs=1e-4), True)
    pytest.importorskip("matplotlib")
    draw([point], tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_bytes()
    assert b"edge under t" in drawn
    draw([point], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == drawn


def test_a_file_without_latencies(tmp_path):
    (tmp_path / "peers.json").write_text("{}")
    with pytest.raises(UserError, match=r"peers.json: is no JSON of benchmarks/peers.py"):
        latencies_of(tmp_path / "peers.json")
