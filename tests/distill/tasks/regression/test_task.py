"""Dense regression as a task: standardized training, a head that restores the unit, refusals, and a whole run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import deploy
from deploy.bundle.bundle_files import read_manifest
from deploy.errors import UserError
from deploy.evaluation.receipt import Receipt
from deploy.tasks.regression.levels import level_edges
from distill.data.sample import Batch, Sample
from distill.data.stats import Stats
from distill.losses.expression import parse_terms
from distill.pipeline.pipeline import run
from distill.run import parse
from distill.tasks.registry import open_splits, task_of
from distill.tasks.regression.losses import LOSSES
from distill.tasks.regression.task import RegressionTask, regression_head
from tests.distill.tiny import check_against_data

TASK = RegressionTask(parse_terms("mse", LOSSES))
STATS = Stats((0.0,) * 3, (1.0,) * 3, (), 4, target=(0.7, 0.02))
SMALL = [
    "quick-depth",
    "--data.size",
    "48",
    "48",
    "--data.synthetic-counts",
    "8",
    "4",
    "4",
    "--precision",
    "fp32",
]


def test_the_loss_is_in_deviations_of_the_map():
    batch = Batch(
        torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 0.74), torch.ones(1, 2, 2, dtype=bool), ("a",)
    )
    loss = TASK.loss(parse(SMALL), STATS, torch.device("cpu"))
    assert loss(torch.full((1, 1, 2, 2), 2.0), batch) == pytest.approx(0, abs=1e-6)  # 0.7 + 2 · 0.02
    assert loss(torch.full((1, 1, 2, 2), 3.0), batch) == pytest.approx(1, abs=1e-4)


def test_the_head_restores_the_unit_and_labels_levels():
    raw = torch.linspace(-3, 3, 24).view(1, 1, 4, 6)
    labels, values = regression_head(raw, lambda maps: maps, mean=0.7, std=0.02)
    torch.testing.assert_close(values, 0.7 + 0.02 * raw)
    expected = np.searchsorted(level_edges(0.7, 0.02), values[0, 0].numpy(), side="right")
    np.testing.assert_array_equal(labels[0], expected)
    assert labels.dtype == torch.uint8


def test_statistics_are_those_of_the_maps():
    config = parse(SMALL)
    splits = open_splits(config.data)
    stats = task_of(config, splits).statistics(config, splits)
    depth = torch.cat([sample.label[sample.valid] for sample in map(splits.train.__getitem__, range(8))])
    assert stats.target == pytest.approx((float(depth.mean()), float(depth.std(correction=0))), rel=1e-4)
    assert stats.class_pixels == ()
    assert len(stats.mean) == len(stats.std) == 3
    red = torch.stack([sample.image[0][sample.valid] for sample in map(splits.train.__getitem__, range(1))])
    assert 0 < red.min() < stats.mean[0] < red.max()


class Flat:
    """Images whose map is the same number wherever it is valid."""

    ids = ("a", "b")

    def __init__(self, valid: bool):
        self.valid = valid

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index))
        return Sample(image, torch.full((8, 8), 7.0), torch.full((8, 8), self.valid), self.ids[index])


def test_constant_maps_have_deviation_1_and_maps_without_a_valid_pixel_are_refused():
    config = parse(SMALL)
    splits = open_splits(config.data)
    stats = TASK.statistics(config, replace(splits, train=Flat(True)))
    assert stats.target == (7.0, 1.0)
    with pytest.raises(UserError, match="none of the 2 training images has a valid pixel"):
        TASK.statistics(config, replace(splits, train=Flat(False)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("--distill.loss", "kl"), "kl is for classes, the data has maps; use mse"),
        (("--loss.task", "ce"), "no loss is called ce"),
        (("--loss.class-weights", "log"), "are for classes, the data has maps"),
        (("--data.resize", "tile"), "is for segmentation, the data has maps; use stretch"),
        (("--distill.trust", "label"), "are for classes"),
    ],
)
def test_what_is_for_classes_alone_is_refused(fields, message):
    config = parse([*SMALL, *fields])
    with pytest.raises(UserError, match=message):
        check_against_data(config, open_splits(config.data))


def test_a_teacher_of_other_maps_is_refused():
    TASK.check_metadata(Path("t.safetensors"), TASK.metadata(STATS), STATS)
    with pytest.raises(UserError, match=r"trained on maps of mean 0\.8 .* this data has 0\.7 and 0\.02"):
        TASK.check_metadata(Path("t.safetensors"), {"target": [0.8, 0.02]}, STATS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("depth") / "run"
    small = ["--teacher.arch=pspnet/test_efficientnet", "--teacher.head-channels=16"]
    small += ["--student.arch=pspnet/test_efficientnet", "--student.head-channels=16"]
    steps = ["--teacher-train.steps=2", "--student-train.steps=2", "--augment.crop", "48", "48"]
    loose = ["--int8.max-drop=1", "--int8.min-agreement=0", "--int8.calibration-images=8", "--no-baseline"]
    run(parse([*SMALL, *small, *steps, *loose, "--int8.qat-steps=0", "--out", str(out)]))
    return out


@pytest.mark.slow
def test_a_run_leaves_a_bundle_whose_map_is_in_meters(finished):
    manifest = read_manifest(finished / "student.bundle")
    assert (manifest.task, len(manifest.classes)) == ("regression", 8)
    assert manifest.metrics["neg_rmse"] < 0
    model = deploy.load(finished / "student.bundle", "onnxruntime")
    config = parse(SMALL)
    sample = open_splits(config.data, config.seed).test[0]
    result = model(sample.image.permute(1, 2, 0).numpy().astype(np.uint8))
    assert result.values.shape == (48, 48)
    assert np.isfinite(result.values).all()
    rmse = np.sqrt(np.square(result.values - sample.label.numpy())[sample.valid.numpy()].mean())
    assert rmse < 0.5  # meters from a table 0.7 m away, after two steps


@pytest.mark.slow
def test_its_report_is_in_the_unit_of_the_error(finished):
    text = (finished / "report.md").read_text()
    assert "RMSE ×10⁻³" in text
    assert "δ<1.25 %" in text
    receipts = json.loads((finished / "report.json").read_text())["receipts"]
    assert all(receipt["metric"] == "RMSE" and receipt["factor"] == -1000 for receipt in receipts.values())
    assert {"fp32", "int8"} <= {
        entry.precision for entry in read_manifest(finished / "student.bundle").files.values()
    }
    assert Receipt.__struct_fields__[3] == "metric"
