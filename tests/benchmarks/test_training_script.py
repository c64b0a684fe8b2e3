"""benchmarks/training.py on a tiny configuration."""

import json

import pytest

from benchmarks.training import main, table
from deploy.errors import UserError
from tests.distill.tiny import RUN

WAYS = ["bare", "bare step", "no teacher", "stored views", "teacher online", "plain"]


@pytest.mark.slow
def test_measures_every_way_in_turns(tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main([*RUN, "--steps", "2", "--rounds", "2", "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    assert list(content["seconds"]) == sorted(WAYS)
    assert all(len(times) == 4 and min(times) > 0 for times in content["seconds"].values())
    assert content["machine"]["python"]
    lines = capsys.readouterr().out.splitlines()
    assert [line[:14].strip() for line in lines if line[:14].strip() in WAYS] == WAYS


def test_throughput_is_that_of_the_median_step():
    lines = table({"bare": [0.1, 0.2, 0.3], "plain": [0.4, 0.4, 9.0]}, 8).splitlines()
    assert lines[2].split() == ["bare", "40.0", "200", "100", "300", "1.00"]
    assert lines[3].split() == ["plain", "20.0", "400", "400", "9000", "0.50"]


def test_no_steps_is_a_mistake():
    with pytest.raises(UserError, match="--steps and --rounds must be at least 1"):
        main(["smoke", "--steps", "0"])
