"""Two machines, as far as one can emulate them, train as one; a killed process is restarted where the run was."""

import json

import pytest
import torch

from deploy.errors import UserError
from distill.pipeline.machines import OWN_STORE, check_restarts
from distill.training.checkpoint import load_checkpoint
from tests.distill.tiny import RUN
from tests.distill.training.nodes import errors, free_port, launch_on, two_nodes
from tests.distill.training.two_trainings import open_context, trained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo"),
]
TRAIN = ("-m", "tests.distill.training.train_only", *RUN, "--no-baseline")
STEPS = ("--teacher-train.steps=6", "--student-train.steps=6", "--student-train.checkpoint-every=2")


@pytest.fixture(scope="module")
def nodes():
    with two_nodes() as both:
        yield both


def together(nodes, *arguments, others=None, options=()):
    """Run the same on both nodes, or `others` on the second one."""
    commands = [arguments, arguments if others is None else others]
    module = [["-m", *command[1:]] if command[0] == "-m" else list(command) for command in commands]
    return launch_on(nodes, module, *options, port=free_port())


def best(out, stage):
    return load_checkpoint(out / stage / "best.safetensors")[0]


def test_two_nodes_train_as_one_process(nodes, tmp_path):
    both = together(nodes, "-m", "tests.distill.training.train_one", "adamw, accumulated", str(tmp_path))
    assert [one.code for one in both] == [0, 0], both
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = trained("adamw, accumulated", open_context(tmp_path / "alone"))
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-5, atol=1e-5)  # as in test_two_processes


def test_a_killed_process_is_restarted_and_ends_as_an_undisturbed_run(nodes, tmp_path, monkeypatch):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert [one.code for one in together(nodes, *TRAIN, *STEPS, f"--out={straight}")] == [0, 0]
    monkeypatch.setenv("KILL", "1 student 5")
    both = together(nodes, *TRAIN, *STEPS, f"--out={killed}", "--resume", options=["--max-restarts=2"])
    assert [one.code for one in both] == [0, 0], both
    printed = "".join(one.printed for one in both)
    assert "exitcode: -9" in printed
    assert "student 6: val_miou" in printed
    assert [line for line in errors(printed) if "another process of this run has ended" not in line] == []
    for stage in ("teacher", "student"):
        expected, found = best(straight, stage), best(killed, stage)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), (stage, name)
    lines = [json.loads(line) for line in (killed / "student" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 7))


def test_folders_that_are_not_shared_are_refused_and_left_as_they_were(nodes, tmp_path):
    outs = [tmp_path / "here", tmp_path / "there"]
    both = together(nodes, *TRAIN, f"--out={outs[0]}", others=(*TRAIN, f"--out={outs[1]}"))
    assert [one.code for one in both] == [1, 1]  # of torchrun
    for out, ended in zip(outs, both, strict=True):
        [line] = errors(ended.printed)
        assert line.startswith(f"error: {out}: is not the same folder for all processes (process 1 on ")
    assert not any(out.exists() for out in outs)


def test_restarts_need_a_new_store_at_each_start(monkeypatch):
    for name, value in (("TORCHELASTIC_MAX_RESTARTS", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(OWN_STORE, raising=False)
    with pytest.raises(UserError, match=f"set {OWN_STORE}=1 where torchrun is started"):
        check_restarts(resume=True)
    monkeypatch.setenv(OWN_STORE, "1")
    check_restarts(resume=True)
    monkeypatch.delenv(OWN_STORE)
    monkeypatch.setenv("WORLD_SIZE", "1")  # nobody to look for
    check_restarts(resume=True)


def test_restarts_need_resume(nodes, tmp_path):
    both = together(nodes, *TRAIN, f"--out={tmp_path / 'run'}", options=["--max-restarts=1"])
    assert errors(both[0].printed)[0].endswith("must continue where it was: add --resume")
