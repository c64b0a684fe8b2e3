"""Processes stop together within seconds, wherever one of them is asked to, and train only with what they share."""

import pytest

from tests.distill.training.stopping import results
from tests.distill.training.two import run_two

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopping")
    return run_two(results, folder / "results", folder / "run")


def test_a_stop_ends_a_validation_of_20_seconds_in_all_processes(both):
    for found in (one["in validation"] for one in both):
        assert found["code"] == 143
        assert found["line"] == "stopped after step 3 of straight; continue with --resume"
        assert found["seconds"] < 12
        assert found["unscored"]
        assert found["equal"]


def test_a_stop_ends_waiting_for_images_in_all_processes(both):
    for found in (one["loading"] for one in both):
        assert (found["code"], found["step"], found["unscored"]) == (143, 2, False)
        assert found["seconds"] < 30
        assert found["equal"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("settings", "process 1 has other settings than the main process: seed is 3, there 0; start all"),
        (
            "data",
            "the data of process 1 are not those of the main process: 1 of val added (another); 1 of val",
        ),
        ("folder", "is not the same folder for all processes (process 1 on "),
    ],
)
def test_what_differs_is_said_by_all_processes(both, case, said):
    for one in both:
        assert said in one["differing"][case]
        assert "nothing" not in one["differing"]
