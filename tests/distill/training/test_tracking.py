"""Experiment logs: the configuration and metrics of the JSON log, from one process, and never fatal during a run."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import tracking as accelerates

from deploy.errors import UserError
from distill.config import AugmentConfig, DataConfig, TrainConfig
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import training_stage
from distill.presets import smoke
from distill.run_folder import settings
from distill.training.loop import train
from distill.training.tracking import require_tracker, stop_tracker, track
from tests.distill.tiny import tiny_net

TRAINING = TrainConfig(steps=4, batch_size=4, log_every=2, eval_every=2)


class Fake(accelerates.GeneralTracker):
    """Records the calls of accelerate's trackers."""

    name = "mlflow"
    requires_logging_directory = False
    fails_to: tuple[str, ...] = ()

    def __init__(self, project, **options):
        self.project, self.options = project, options
        self.parameters, self.logged, self.ended = {}, [], False
        self.info = type("Info", (), {"run_id": "run-7"})

    @property
    def tracker(self):
        return self

    def start(self):
        self._do("start")

    def store_init_configuration(self, values):
        self.parameters = values

    def log(self, values, step=None, **kwargs):
        self._do("log")
        self.logged.append((step, values))

    def finish(self):
        self._do("finish")
        self.ended = True

    def _do(self, what):
        if what in self.fails_to:
            raise ConnectionError("no route to the server\nand much more")


@pytest.fixture
def fake(monkeypatch):
    """`--tracker mlflow` reaches a `Fake`, installed or not."""
    kind = type("FakeHere", (Fake,), {})
    monkeypatch.setattr("distill.training.tracking.find_spec", lambda name: name)
    monkeypatch.setitem(accelerates.LOGGER_TYPE_TO_CLASS, "mlflow", kind)
    monkeypatch.setattr(accelerates, "_available_trackers", [accelerates.LoggerType.MLFLOW])
    return kind


def config(out: Path, tracker: str, **fields):
    return replace(
        smoke(),
        data=DataConfig("synthetic", size=(32, 32), synthetic_counts=(8, 2, 1)),
        augment=AugmentConfig(crop=(24, 24)),
        tracker=tracker,
        precision="fp32",
        out=out,
        **fields,
    )


def trained(context, *stages):
    networks = []
    for name in stages:
        network = tiny_net()
        train(network, training_stage(context, name, context.config.student), TRAINING, context.accelerator)
        networks.append(torch.cat([value.flatten().double() for value in network.state_dict().values()]))
    return networks


def json_log(out, stage):
    lines = [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)  # for resuming, not for plots
    return [(line.pop("step"), {f"{stage}/{name}": value for name, value in line.items()}) for line in lines]


def test_the_log_has_the_configuration_and_the_metrics_of_all_stages(fake, tmp_path):
    context = prepare(config(tmp_path / "r", "mlflow"))
    (tracker,) = context.accelerator.trackers
    trained(context, "teacher", "student")
    stop_tracker(context.accelerator)
    assert tracker.parameters == settings(context.config)
    assert tracker.parameters["student_train.lr"] == 1e-3
    assert tracker.logged == json_log(tmp_path / "r", "teacher") + json_log(tmp_path / "r", "student")
    assert {"student/loss", "student/lr", "student/val_miou"} <= {key for _, v in tracker.logged for key in v}
    assert tracker.ended
    assert context.accelerator.trackers == []


def test_mlflow_gets_names_that_it_takes(fake, tmp_path):
    context = prepare(config(tmp_path / "r", "mlflow"))
    track(
        context.accelerator, "student", {"val_success@5": 0.5, "val_δ<1.25": 1.0, "val_boundary_f1": 0.2}, 3
    )
    (tracker,) = context.accelerator.trackers
    names = {"student/val_success_5": 0.5, "student/val_δ_1.25": 1.0, "student/val_boundary_f1": 0.2}
    assert tracker.logged == [(3, names)]


def test_a_run_that_is_refused_starts_no_log(fake, tmp_path, monkeypatch):
    def refuse(*_):
        raise UserError("no valid pixel")

    started = []
    monkeypatch.setattr(fake, "start", lambda self: started.append(self))
    monkeypatch.setattr("distill.pipeline.prepare.check_teachers", refuse)
    with pytest.raises(UserError, match="no valid pixel"):
        prepare(config(tmp_path / "r", "mlflow"))
    assert not started


def test_a_resumed_run_continues_its_log_or_starts_none(fake, tmp_path):
    first = prepare(config(tmp_path / "r", "mlflow")).accelerator.trackers[0]
    again = prepare(config(tmp_path / "r", "mlflow", resume=True)).accelerator.trackers[0]
    assert first.options == {"run_id": None, "run_name": "r"}
    assert again.options == {"run_id": "run-7", "run_name": "r"}
    assert again.parameters == first.parameters  # MLflow takes no others for the same run
    assert prepare(config(tmp_path / "r", "none", resume=True)).accelerator.trackers == []


def test_a_tracker_that_fails_during_training_is_warned_of_once(fake, tmp_path, capsys):
    untracked = trained(prepare(config(tmp_path / "plain", "none")), "student")
    context = prepare(config(tmp_path / "r", "mlflow"))
    fake.fails_to = ("log", "finish")
    assert torch.equal(trained(context, "student")[0], untracked[0])
    stop_tracker(context.accelerator)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert told == ["warning: mlflow failed (no route to the server); the run continues without it"]


def test_one_that_fails_at_the_start_stops_before_training(fake, tmp_path):
    fake.fails_to = ("start",)
    with pytest.raises(UserError, match="--tracker mlflow: no route to the server; fix it, or leave"):
        prepare(config(tmp_path / "r", "mlflow"))


def test_a_run_that_fails_ends_its_log(fake, tmp_path, monkeypatch):
    trackers = []

    def broken(context):
        trackers.append(context.accelerator.trackers[0])
        raise UserError("an image is damaged")

    monkeypatch.setattr("distill.pipeline.pipeline.run_pipeline", broken)
    with pytest.raises(UserError, match="damaged"):
        run(config(tmp_path / "r", "mlflow"))
    assert trackers[0].ended


def test_one_that_fails_at_the_end_is_only_warned_of(fake, tmp_path, capsys):
    context = prepare(config(tmp_path / "r", "mlflow"))
    fake.fails_to = ("finish",)
    stop_tracker(context.accelerator)
    assert capsys.readouterr().err.count("warning: mlflow failed") == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_made(name, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.training.tracking.find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=rf"--tracker {name} needs a package: pip install 'edgedistill\[{name}\]'"
    ):
        prepare(config(tmp_path / "r", name))
    assert not (tmp_path / "r").exists()
    require_tracker("none")


@pytest.mark.filterwarnings("default")  # the services' own code
def test_mlflow_writes_to_files(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its database needs packages that the client lacks
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"file:{tmp_path / 'mlruns'}")
    try:
        for stage in ("teacher", "student"):  # the second in a resumed run
            context = prepare(config(tmp_path / "r", "mlflow", resume=stage == "student"))
            trained(context, stage)
            stop_tracker(context.accelerator)
        client = mlflow.MlflowClient()
        (experiment,) = client.search_experiments(filter_string="name = 'edgedistill'")
        (found,) = client.search_runs([experiment.experiment_id])
        assert found.info.status == "FINISHED"
        assert found.info.run_name == "r"
        assert found.data.params["student_train.lr"] == "0.001"
        for stage in ("teacher", "student"):
            for step, values in json_log(tmp_path / "r", stage):
                for name, value in values.items():
                    history = client.get_metric_history(found.info.run_id, name)
                    assert (step, value) in [(point.step, point.value) for point in history]
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.filterwarnings("default")
def test_wandb_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_PROJECT": "mine"}.items():
        monkeypatch.setenv(name, value)
    context = prepare(config(tmp_path / "r", "wandb"))
    log = context.accelerator.trackers[0].tracker
    assert log.project == "mine"
    assert log.config["student_train.lr"] == 1e-3
    trained(context, "teacher", "student")
    wanted = json_log(tmp_path / "r", "student")
    for name, value in wanted[-1][1].items():
        assert log.summary[name] == value
    stop_tracker(context.accelerator)
    (file,) = (tmp_path / "r" / "wandb").glob(f"offline-run-*-{log.id}/*.wandb")
    deadline = (
        time.monotonic() + 60
    )  # on a busy machine the service writes the file after the run is finished
    while b"student/val_miou" not in file.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"student/val_miou" in file.read_bytes()
    assert b"teacher/loss" in file.read_bytes()
    assert json.loads((tmp_path / "r" / "tracker.json").read_text()) == {"wandb": log.id}
