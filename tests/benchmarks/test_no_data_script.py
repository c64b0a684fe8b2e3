"""benchmarks/no_data.py on a few steps."""

import json

import pytest
import torch

from benchmarks.no_data import Score, main, table
from benchmarks.no_data_gaps import GappedReader
from deploy.errors import UserError
from distill.config import DataConfig
from distill.tasks.registry import open_splits


@pytest.fixture(scope="module")
def scenes():
    return open_splits(DataConfig("synthetic", size=(48, 48), synthetic_counts=(12, 1, 1))).train


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_each_scene_lacks_the_share_in_few_pieces(scenes, share):
    reader = GappedReader(scenes, share, seed=0)
    assert 2 < len(reader) == len(reader.ids) < 12  # scenes at the edge of the swath are left out
    for index in range(len(reader)):
        sample = reader[index]
        missing = ~sample.valid
        assert float(missing.float().mean()) == pytest.approx(share, abs=0.01)
        assert torch.equal(sample.image.isnan().any(0), missing)
        edges = (missing[1:] != missing[:-1]).sum() + (missing[:, 1:] != missing[:, :-1]).sum()
        assert edges < 8 * 48, "scattered pixels have about 1500"


def test_a_scene_is_always_the_same(scenes):
    one, other = (GappedReader(scenes, 0.4, seed)[1] for seed in (3, 3))
    assert torch.equal(one.valid, other.valid)
    assert not torch.equal(one.valid, GappedReader(scenes, 0.4, 4)[1].valid)


def test_gains_are_paired_by_seed():
    def score(masked, seed, miou):
        return Score(0.4, 0.0, masked, seed, miou, 1.0)

    lines = table([score(False, 0, 0.5), score(False, 1, 0.6), score(True, 1, 0.62), score(True, 0, 0.51)])
    assert lines.splitlines()[2].split() == [
        *("40%", "0%", "55.00", "±", "7.07", "56.50", "±", "7.78", "1.50", "±", "0.71", "+1.00", "+2.00")
    ]


def test_uneven_gaps_cover_nearly_all_or_nothing(scenes):
    reader = GappedReader(scenes, 0.5, seed=0, uneven=True)
    missing = [float((~reader[index].valid).float().mean()) for index in range(len(reader))]
    assert {round(share, 2) for share in missing} == {0.0, 0.95}
    assert GappedReader(scenes, 0.0, seed=0, uneven=True)[0].valid.all()


@pytest.mark.slow
def test_without_gaps_both_norms_are_equal(tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main(["--shares", "0", "0.5", "--seeds", "0", "--steps", "3", "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    assert content["machine"]["python"]
    whole = [score["miou"] for score in content["scores"] if score["share"] == 0]
    assert whole[0] == whole[1]
    assert len(content["scores"]) == 2 + 4
    assert "50%" in capsys.readouterr().out


def test_mistakes_are_named():
    with pytest.raises(UserError, match="--shares"):
        main(["--shares", "1"])
    with pytest.raises(UserError, match="--steps"):
        main(["--steps", "0"])
