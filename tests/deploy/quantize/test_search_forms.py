"""The search in each form of a model, and in FP8."""

import pytest

from deploy.errors import GateFailed
from deploy.evaluation.receipt import Budget
from deploy.quantize.calibrators import CALIBRATORS
from deploy.quantize.options import fp8_options
from deploy.quantize.qdq import layers
from deploy.quantize.report import Figures
from deploy.quantize.search import quantize
from tests.deploy.quantize.nets import calibration, images, residual_net
from tests.deploy.quantize.searches import Evaluation, Rule, constants, search


@pytest.fixture(scope="module")
def model():
    return residual_net()


@pytest.mark.parametrize("form", ["cpu", "tensorrt"])
def test_the_best_calibrator_in_the_form_that_will_run_is_taken_if_it_meets_the_budget(model, form):
    evaluate = Evaluation(model)
    made, lines = search(model, evaluate, form=form)
    report = made.report
    assert list(report.calibrators) == list(CALIBRATORS)
    ranked = {name: figures.agreement for name, figures in report.calibrators.items()}
    assert report.calibrator == max(ranked, key=ranked.__getitem__)
    assert (report.float_layers, report.sensitivity) == ((), ())
    assert (report.layers, report.images) == (13, 32)
    assert report.fp32 == Figures(1.0, 1.0)
    assert all(f"int8, {name}: {form}: mIoU" in line for name, line in zip(CALIBRATORS, lines, strict=True))
    assert report.form == form
    assert report.forms == {
        "cpu": evaluate(made.models["cpu"], "cpu"),
        "tensorrt": evaluate(made.models["tensorrt"], "tensorrt"),
    }
    assert report.forms[form] == report.calibrators[report.calibrator] == report.all_int8
    assert report.int8.agreement == min(figures.agreement for figures in report.forms.values())


def test_calibrators_and_layers_are_ranked_in_the_form_that_will_run(model):
    """Which of two layers is worth leaving in float depends on the form."""
    matters = {"cpu": "pyramid.direct", "tensorrt": "backbone.layer1.0.conv1"}

    def evaluate(candidate, form):
        in_float = form is None or f"network.{matters[form]}.weight" in constants(candidate)
        return Figures(0.9 if in_float else 0.85, 1.0)

    for form, layer in matters.items():
        made, _ = search(model, evaluate, sensitivity=True, calibrators=("mse",), form=form)
        assert made.report.sensitivity[0].name == layer


def test_layers_are_ranked_in_the_form_that_is_over_the_budget(model):
    """Here the CPU's form, which will run, is right as it is."""
    rule = Rule(model, {"backbone.layer1.0.conv2": 0.2})

    def evaluate(candidate, form):
        return rule(candidate, form) if form == "tensorrt" else Figures(0.9, 0.99)

    made, _ = search(model, evaluate, Budget(0.05, 0.9), calibrators=("min-max",))
    assert made.report.float_layers == ("backbone.layer1.0.conv2",)
    assert made.report.all_int8.score == pytest.approx(0.7)
    assert len(made.report.sensitivity) == 13


def test_fp8_has_one_form_and_is_searched_alike(model):
    needed = {"pyramid.direct": 0.2}
    made = quantize(
        model,
        calibration(images(32)),
        Rule(model, needed),
        fp8_options(Budget(0.05, 0.9)),
        say=lambda _: None,
    )
    assert list(made.models) == list(made.report.forms) == ["tensorrt"]
    assert list(made.report.calibrators) == ["min-max"]
    assert made.report.float_layers == ("pyramid.direct",)
    assert made.report.layers == 9  # sums, and the stem, stay in half precision


def test_fp8_out_of_reach_is_not_sent_to_int8_training(model):
    evaluate = Rule(model, {layer.name: 0.05 for layer in layers(model) if layer.kind == "Conv"})
    options, quiet = fp8_options(Budget(0.05, 0.9)), lambda _: None
    with pytest.raises(GateFailed, match=r"fp8 with .* calibration images, or allow a larger budget"):
        quantize(model, calibration(images(32)), evaluate, options, say=quiet)


def test_both_forms_have_to_meet_the_budget(model):
    """Errors of the signed form alone, by its clipping, must not go unnoticed."""
    real = Evaluation(model)

    def signed_is_bad(candidate, form):
        return Figures(0.0, 0.0) if form == "tensorrt" else real(candidate, form)

    with pytest.raises(GateFailed):
        search(model, signed_is_bad)
