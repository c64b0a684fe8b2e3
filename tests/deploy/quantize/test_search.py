"""The choice of calibrator and of the layers that stay in float."""

import numpy as np
import pytest

from deploy.errors import GateFailed, UserError
from deploy.evaluation.receipt import Budget
from deploy.quantize.calibrators import CALIBRATORS
from deploy.quantize.options import Int8Options
from deploy.quantize.qdq import layers
from deploy.quantize.report import Figures
from deploy.quantize.search import quantize
from tests.deploy.quantize.nets import Net, calibration, images, residual_net
from tests.deploy.quantize.searches import LOOSE, Evaluation, Rule, constants, search


@pytest.fixture(scope="module")
def model():
    return residual_net()


def test_learned_ranges_are_one_more_candidate(model):
    evaluate = Evaluation(model)
    best = search(model, evaluate)[0].report
    tensor = next(iter(best.ranges))

    hopeless, _ = search(model, evaluate, learned={tensor: 1e-3})
    same, _ = search(model, evaluate, learned=best.ranges)

    assert list(hopeless.report.calibrators) == [*CALIBRATORS, "learned"]
    assert hopeless.report.calibrator == best.calibrator
    assert same.report.calibrators["learned"] == best.calibrators[best.calibrator]


def test_sensitivity_ranks_every_layer_on_request(model):
    made, lines = search(model, Evaluation(model), sensitivity=True, calibrators=("mse",))
    report = made.report
    assert sorted(row.name for row in report.sensitivity) == sorted(layer.name for layer in layers(model))
    mious = [row.figures.score for row in report.sensitivity]
    assert mious == sorted(mious, reverse=True)
    assert not report.float_layers
    assert "int8, mse: measuring 13 layers, each alone in float" in lines


def test_the_smallest_set_of_layers_that_matter_stays_in_float(model):
    needed = {"backbone.layer1.0.conv2": 0.2, "pyramid.direct": 0.1}
    evaluate = Rule(model, needed)
    made, lines = search(model, evaluate, Budget(0.05, 0.9), calibrators=("min-max",))
    assert set(made.report.float_layers) == set(needed)
    assert made.report.int8.score == pytest.approx(0.9)
    assert [row.name for row in made.report.sensitivity[:2]] == list(needed)
    assert len(evaluate.models) < 1 + 2 + 13 + 2 * 6
    assert lines[-2].startswith("int8, min-max, 2 of 13 layers in float: cpu: mIoU 90.00 % (+0.000)")
    assert lines[-1] == "int8, in float: backbone.layer1.0.conv2, pyramid.direct"
    assert {"network.pyramid.direct.weight", "classifier.weight.int8"} <= constants(made.models["tensorrt"])


def test_a_layer_of_the_ranking_that_does_not_matter_is_not_kept(model):
    """Alone, the second gains more than the third, but only the first and third together suffice."""

    def evaluate(candidate, form):
        found = constants(candidate)
        first, decoy, other = (
            f"network.{name}.weight" in found
            for name in ("backbone.conv1", "pyramid.taps.0", "pyramid.direct")
        )
        if not found & {"zero.s8", "zero.u8"}:
            return Figures(0.9, 1.0)
        return Figures(0.9 if first and other else 0.5 + 0.2 * first + 0.1 * decoy + 0.05 * other, 1.0)

    made, _ = search(model, evaluate, Budget(0.05, 0.9), calibrators=("min-max",))
    assert set(made.report.float_layers) == {"backbone.conv1", "pyramid.direct"}


def test_blocks_stay_in_float_as_a_whole(model):
    evaluate = Rule(model, {"backbone.layer2.0.conv2": 0.2})
    made, _ = search(model, evaluate, Budget(0.05, 0.9), calibrators=("mse",), granularity="block")
    members = {layer.name for layer in layers(model) if layer.block == "backbone.layer2.0"}
    assert len(members) == 4
    assert set(made.report.float_layers) == members
    assert len(made.report.sensitivity) == 7


def test_where_agreement_is_what_fails_it_ranks(model):
    evaluate = Rule(model, {})
    made, _ = search(model, evaluate, Budget(0.05, 0.9915), calibrators=("min-max",))
    assert len(made.report.float_layers) == 2
    agreements = [row.figures.agreement for row in made.report.sensitivity]
    assert agreements == sorted(agreements, reverse=True)


def test_a_budget_out_of_reach_fails_with_figures_and_remedies(model):
    evaluate = Rule(model, {layer.name: 0.05 for layer in layers(model) if layer.kind == "Conv"})
    lines = []
    with pytest.raises(GateFailed, match=r"mIoU .* over the budget .* calibration images.*QAT") as caught:
        quantize(model, calibration(images(32)), evaluate, Int8Options(Budget(0.05, 0.9)), say=lines.append)
    assert "\n" not in str(caught.value)
    assert "(all in float)" in lines[-1]  # the ranking, which took long to measure, is not lost


class TestKeepFloat:
    def test_stays_in_float_whatever_it_gains_and_is_not_ranked(self, model):
        options = {"calibrators": ("mse",), "sensitivity": True}
        made, _ = search(model, Evaluation(model), keep_float=("last", "first"), **options)
        names = [layer.name for layer in layers(model)]
        assert made.report.float_layers == (names[0], names[-1])
        assert sorted(row.name for row in made.report.sensitivity) == sorted(names[1:-1])

    def test_comes_on_top_of_what_the_budget_needs(self, model):
        evaluate = Rule(model, {"pyramid.direct": 0.1})
        made, _ = search(
            model, evaluate, Budget(0.05, 0.9), calibrators=("mse",), keep_float=("backbone.layer2.0",)
        )
        block = {layer.name for layer in layers(model) if layer.block == "backbone.layer2.0"}
        assert set(made.report.float_layers) == block | {"pyramid.direct"}

    def test_an_unknown_name_is_refused_with_those_close_to_it(self, model):
        with pytest.raises(UserError, match=r"'pyramid.direkt'; close are pyramid\.direct"):
            search(model, Evaluation(model), keep_float=("pyramid.direkt",))

    def test_something_has_to_be_quantized(self, model):
        with pytest.raises(UserError, match="leaves no layer to quantize"):
            search(model, Evaluation(model), keep_float=tuple(layer.name for layer in layers(model)))


def hostile_net() -> bytes:
    """Between `spread` and `gather` one channel is 3000 times larger than the others, and every channel matters."""
    net = Net(3)
    x = net.op("Relu", net.conv(net.image(), "stem", 3, 16, strides=[2, 2]))
    x = net.op("Relu", net.conv(x, "spread", 16, 16))
    x = net.op("Relu", net.conv(x, "gather", 16, 16))
    x = net.op("Relu", net.conv(x, "after", 16, 16))
    for name in ("weight", "bias"):
        net.constants[f"network.spread.{name}"][0] *= 3000
    net.constants["network.gather.weight"][:, 0] /= 3000
    return net.model(net.conv(x, "classifier", 16, 5, 1))


def test_a_layer_hostile_to_int8_is_found_and_left_in_float():
    model = hostile_net()
    made, _ = search(model, Evaluation(model), Budget(0.06, 0.97), count=8)
    report = made.report
    assert all(figures.score < 0.8 for figures in report.calibrators.values())
    assert report.float_layers == ("gather",)
    assert report.sensitivity[0].name == "gather"
    assert report.int8.score > 0.94


def test_too_few_images_are_refused_and_few_are_warned_of(model):
    with pytest.raises(UserError, match="has 7 images with a valid pixel; at least 8"):
        search(model, Evaluation(model), count=7)
    void = [(image, np.zeros((32, 48), bool)) for image in images(30)]
    with pytest.raises(UserError, match="has 5 images with a valid pixel"):
        quantize(
            model, [*calibration(images(5)), *void], Evaluation(model), Int8Options(LOOSE), say=lambda _: None
        )
    _, lines = search(model, Evaluation(model), count=8, calibrators=("min-max",))
    assert "only 8 calibration images" in lines[0]
    _, lines = search(model, Evaluation(model), count=32, calibrators=("min-max",))
    assert not any("warning" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"calibrators": ("mse", "magic")},
            "calibrators: magic; choose from min-max, percentile, entropy, mse",
        ),
        ({"calibrators": ()}, "calibrators: none"),
        ({"granularity": "network"}, "'network' is unknown; choose layer or block"),
    ],
)
def test_unknown_options_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        search(model, Evaluation(model), **options)


def test_a_model_without_convolutions_is_refused():
    net = Net()
    model = net.model(net.image())
    with pytest.raises(UserError, match="no layer that int8 can compute"):
        search(model, Evaluation(model))
