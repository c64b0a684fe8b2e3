"""Workers that may not take part: each is named with the remedy, before or at its first task."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy import pinned
from deploy.cluster import command, fitness
from deploy.cluster.connect import connected
from deploy.cluster.fitness import Answer, Job, answer, check_workers, packages, refusal
from deploy.cluster.tasks import Item, predict_image
from deploy.errors import UserError
from deploy.files.images import write_png
from deploy.pinned import pin
from tests.deploy.cluster.runs import many, write_images
from tests.deploy.tiny import make_bundle, make_image


@pytest.fixture
def job(bundles: Path, tmp_path: Path) -> Job:
    write_png(tmp_path / "a.png", make_image())
    (tmp_path / "out" / "run").mkdir(parents=True)
    paths = (tmp_path / "a.png", tmp_path / "out")
    pinned = pin(bundles / "rgb", "onnxruntime", "auto", 1)
    return Job(pinned, *map(str, paths), work=str(tmp_path / "out" / "run"))


def change(job: Job, **fields: object) -> Job:
    return msgspec.structs.replace(job, **fields)


def test_a_process_like_the_client_is_fit(job):
    assert answer(job) == Answer(None, packages())
    assert packages()["numpy"] == np.__version__


def test_every_reason_is_said(job, bundles):
    other = msgspec.structs.replace(job.pin, bundle=str(bundles / "sar"))
    missing = msgspec.structs.replace(job.pin, bundle="/none/bundle")
    code = msgspec.structs.replace(job.pin, code="0")
    cases = {
        "is other code of edgedistill than that of the client": change(job, pin=code),
        "does not see INPUT, /none/a.png; give a folder that all machines share": change(
            job, sample="/none/a.png"
        ),
        f"does not see OUT, {job.out}; give a folder that all machines share": change(job, work="/none/run"),
        "is another bundle here (digest ": change(job, pin=other),
        "is not fit: /none/bundle: no such folder": change(job, pin=missing),
    }
    for text, bad in cases.items():
        why = refusal(bad)
        assert why is not None
        assert text in why
        outcome = predict_image(bad, Item(job.sample, "a", ""))
        assert outcome.done is None
        assert text in str(outcome.refusal)


def test_the_cluster_is_asked_before_anything_is_predicted(bundles, scheduler, tmp_path, monkeypatch):
    given, out = write_images(tmp_path / "images", 3), tmp_path / "out"
    monkeypatch.setattr(pinned, "code_digest", lambda: "of another version")
    with pytest.raises(
        UserError, match=r"worker tcp://\S+ is not fit: \S+ is other code of edgedistill than .*install"
    ) as caught:
        many(bundles / "rgb", given, out, "--scheduler", scheduler)
    assert "\n" not in str(caught.value)
    assert not list(out.iterdir())


def test_a_bundle_that_changed_after_the_check_ends_the_run(scheduler, tmp_path, monkeypatch):
    """A worker that came late is asked by its first task."""
    given = write_images(tmp_path / "images", 3)
    make_bundle(tmp_path / "bundle")
    monkeypatch.setattr(command, "check_workers", lambda *_: make_bundle(tmp_path / "bundle", resize="tile"))
    with pytest.raises(UserError, match=r"worker \S+ is not fit: .*is another bundle here.*--resume"):
        many(tmp_path / "bundle", given, tmp_path / "out", "--scheduler", scheduler)


def test_a_worker_without_this_command_is_named(job, scheduler, monkeypatch):
    def missing(*_: object, **__: object) -> dict[str, object]:
        return {"tcp://a:1": ModuleNotFoundError("No module named 'deploy.cluster'")}

    with connected(scheduler, None) as client:
        monkeypatch.setattr(client, "run", missing)
        with pytest.raises(
            UserError, match=r"worker tcp://a:1 has no edgedistill with predict-many \(No module"
        ):
            check_workers(client, job)


def test_other_versions_of_packages_are_warned_of(job, scheduler, monkeypatch):
    with connected(scheduler, None) as client:
        monkeypatch.setattr(fitness, "packages", lambda: {"numpy": "1.0"})
        with pytest.warns(
            RuntimeWarning, match=r"workers have numpy \S+, the client has 1\.0: results may differ"
        ):
            check_workers(client, job)
