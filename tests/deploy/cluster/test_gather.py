"""What comes back from tasks: each warning once, errors of one input, and what ends the whole run."""

import warnings

import pytest

from deploy.cluster.connect import connected
from deploy.cluster.gather import outcomes
from deploy.cluster.outcome import Done, Outcome, warnings_of_task
from deploy.errors import UserError


@pytest.fixture(scope="module")
def client(scheduler):
    with connected(scheduler, None) as client:
        yield client


def fail(error):
    raise error


def test_outcomes_of_tasks_that_raise(client):
    good = client.submit(Outcome, Done("a", "1", "a", {}), pure=False)
    bad = client.submit(fail, ValueError("what\nnobody expects"), pure=False)
    found = dict(outcomes(client, [good, bad], "images"))
    assert found[good].done == Done("a", "1", "a", {})
    assert found[bad].error == "unexpected ValueError: what"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'deploy.x'"),
            r"a worker cannot import the client's edgedistill \(No",
        ),
    ],
)
def test_errors_that_end_the_run(client, error, message):
    with pytest.raises(UserError, match=message):
        list(outcomes(client, [client.submit(fail, error, pure=False)], "images"))


def test_refusals_end_the_run(client):
    future = client.submit(Outcome, refusal="worker a does not see OUT", pure=False)
    with pytest.raises(UserError, match="worker a does not see OUT; then continue with --resume"):
        list(outcomes(client, [future], "images"))


def test_dropped_tasks_end_the_run(client):
    future = client.submit(sum, [1, 2], pure=False)
    future.cancel()
    with pytest.raises(UserError, match="the scheduler has ended or dropped the tasks"):
        list(outcomes(client, [future], "images"))


def test_warnings_and_other_digits_are_told_once(client):
    results = [Outcome(numbers=number, warnings=("depth",)) for number in ("", "1", "1", "2", "3")]
    futures = [
        client.submit(Outcome, numbers=one.numbers, warnings=one.warnings, pure=False) for one in results
    ]
    with pytest.warns(RuntimeWarning) as told:
        list(outcomes(client, futures, "images"))
    texts = [str(one.message) for one in told]
    assert len(texts) == 2
    assert "depth" in texts
    assert any("last digits that workers compute differ" in text for text in texts)


@pytest.mark.filterwarnings("always")
def test_warnings_of_a_task_are_collected_by_thread(capsys):
    with warnings_of_task() as found:
        warnings.warn("of the task", RuntimeWarning, stacklevel=1)
    assert found == ["of the task"]
    with warnings_of_task() as nothing:
        pass
    assert nothing == []
