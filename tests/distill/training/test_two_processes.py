"""Two processes train like one with the same batch, up to rounding."""

import json

import pytest
import torch

from tests.distill.training.two import run_two
from tests.distill.training.two_trainings import (
    CONFIGS,
    STORED_VIEWS,
    VAL_IMAGES,
    all_trained,
    open_context,
    stored,
    trained,
    valid_pixels,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder):
    """The results of each of two processes after all trainings."""
    return run_two(all_trained, folder / "results", folder / "two")


@pytest.fixture(scope="module")
def context(folder):
    return open_context(folder / "one")


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_and_statistics_are_those_of_one_process(two, context, name):
    alone = trained(name, context)
    assert alone.keys() == two[0][name].keys()
    for key, expected in alone.items():
        assert torch.equal(two[0][name][key], two[1][name][key]), key
        # AdamW divides by roots of small numbers, which enlarges rounding: 2.5e-6 after 20 steps on a CPU with AMX.
        torch.testing.assert_close(
            two[0][name][key], expected, rtol=1e-5, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_log_has_the_losses_of_the_whole_batch(two, context, folder, name):
    place = f"{name.replace(', ', '-')}/metrics.jsonl"
    if not (folder / "one" / place).exists():
        trained(name, context)
    one, both = (
        [json.loads(line) for line in (folder / run / place).read_text().splitlines()]
        for run in ("one", "two")
    )
    assert len(one) == len(both) > 0
    for alone, together in zip(one, both, strict=True):
        assert together.keys() == alone.keys()
        timed = dict.fromkeys(("images_per_s", "seconds"), 0)
        assert together | timed == pytest.approx(alone | timed, rel=1e-4)


def test_the_plateau_reduced_the_rate(two, folder):
    """Checks its case above: the rate did fall, by the scores that all processes share."""
    lines = (folder / "two" / "sgd-plateau" / "metrics.jsonl").read_text().splitlines()
    rates = [entry["lr"] for entry in map(json.loads, lines) if "lr" in entry]
    assert rates[-1] < CONFIGS["sgd, plateau"].lr


def test_batches_are_uneven_and_some_are_void_in_one_process_only(context):
    """Checks that the tests above cover these cases."""
    every = [valid_pixels(context, config, world=2) for config in CONFIGS.values()]
    for counts in every:
        assert (counts[..., 0] != counts[..., 1]).any()
        assert ((counts.amin(-1) == 0) & (counts.amax(-1) > 0)).any()
    assert (every[-1].sum(-1) == 0).any(), "no micro-batch is void in all processes"


def test_each_process_scores_its_share(two):
    times = len(two[0]["sgd"]["scores"])
    for rank, result in enumerate(two):
        assert result["read"] == list(range(VAL_IMAGES))[rank::2] * times


def test_one_cache_is_filled_by_both(two, context):
    alone = stored(context)
    rows = STORED_VIEWS * 12
    asked = [int(result["stored"]["asked"]) for result in two]
    assert alone["asked"] == sum(asked) == rows
    assert min(asked) > 0
    for result in two:
        torch.testing.assert_close(result["stored"]["logits"], alone["logits"], rtol=1e-5, atol=1e-6)
    assert len(alone["logits"]) == rows


def test_a_bad_image_stops_all_processes(two):
    assert two[0]["failing"] == "another process failed; see its message"
    assert two[1]["failing"] == "image 3 is damaged"
