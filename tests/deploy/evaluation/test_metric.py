"""Scores as they are shown, and losses of them as budgets count them."""

import pytest

from deploy.evaluation.metric import MIOU, Metric, distinct

RMSE = Metric("RMSE", "neg_rmse", "mm", factor=-1000.0, relative=True)


def test_fractions_are_shown_in_percent_and_lost_in_points():
    assert (MIOU.header, MIOU.text(0.6123), MIOU.change(-0.0123)) == ("mIoU %", "61.23", "-1.230")
    assert MIOU.drop(0.61, 0.60) == pytest.approx(0.01)
    assert MIOU.over(0.0123, 0.01) == "mIoU falls by 1.23 points, more than the budget of 1.00"


def test_errors_are_scored_as_negatives_and_lost_as_shares():
    assert (RMSE.header, RMSE.text(-0.00412), RMSE.change(-0.001)) == ("RMSE mm", "4.12", "+1.000")
    assert RMSE.drop(-0.004, -0.0044) == pytest.approx(0.1)
    assert RMSE.drop(-0.004, -0.003) == pytest.approx(-0.25)  # it got better
    assert RMSE.over(0.1, 0.05) == "RMSE rises by 10.00 %, more than the budget of 5.00"


def test_a_perfect_reference_loses_by_the_difference():
    assert RMSE.drop(0.0, -0.5) == 0.5


def test_numbers_get_the_decimals_that_tell_them_apart():
    assert distinct(1.0, 2.0) == ("1.00", "2.00")
    assert distinct(0.10001, 0.1) == ("0.10001", "0.10000")
