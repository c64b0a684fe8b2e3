"""The line of a report that says what a teacher gave."""

import pytest

from deploy.evaluation.metric import MIOU, Metric
from distill.reporting.gain import distillation_gain


@pytest.mark.parametrize("student", ["student", "student, QAT"])
def test_a_gain_is_told(student):
    [line] = distillation_gain({"teacher": 0.9, "baseline": 0.5, student: 0.5125}, MIOU)
    assert line == "Distillation: +1.25 points of mIoU against the same network trained alone (one seed)"


def test_a_loss_names_what_helps():
    [line] = distillation_gain({"baseline": 0.6, "student": 0.57, "student int8": 0.61}, MIOU)
    assert line.startswith("Distillation: -3.00 points of mIoU")
    assert "did not pay here" in line
    assert "--no-teacher" in line


def test_an_error_that_falls_is_a_gain():
    metric = Metric("RMSE", "neg_rmse", "mm", -1000.0, relative=True)
    [line] = distillation_gain({"baseline": -0.007, "student": -0.006}, metric)
    assert line.startswith("Distillation: -1.00 mm of RMSE")
    assert "did not pay" not in line


@pytest.mark.parametrize("missing", ["baseline", "student"])
def test_without_both_nothing_is_said(missing):
    scores = {name: 0.5 for name in ("teacher", "baseline", "student") if name != missing}
    assert distillation_gain(scores, MIOU) == []
