"""The receipt: hops that change labels or scores fail, and the right one is named."""

from functools import partial
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from deploy.errors import GateFailed, UserError
from deploy.evaluation.receipt import Budget, Hop, Receipt, require_passed, run_hops, table
from deploy.tasks.grasp.task import GraspScorer
from deploy.tasks.regression.metrics import RegressionScorer
from deploy.tasks.segmentation.task import SegmentationScorer

SCORER = partial(SegmentationScorer, ("sky", "road", "car"))


def samples(count=4, size=100):
    """Images whose pixels are their own label."""
    rng = np.random.default_rng(0)
    for index in range(count):
        label = rng.integers(0, 3, (10, 10), dtype=np.uint8).repeat(size // 10, 0).repeat(size // 10, 1)
        valid = np.ones_like(label, bool)
        valid[:, :10] = False
        yield f"sample-{index}", label[..., None], label, valid


def perfect(image):
    return SimpleNamespace(labels=image[..., 0].copy())


def flipping(share):
    """A model that gets that share of each row's valid pixels wrong, the same ones each time."""

    def model(image):
        labels = image[..., 0].copy()
        labels[:, 10 : 10 + round(90 * share)] += 1
        labels %= 3
        return SimpleNamespace(labels=labels)

    return model


def run(*models, budget=None):
    hops = [Hop(name, model, 0, *own_budget) for name, model, *own_budget in models]
    return run_hops(hops, samples(), SCORER, budget, dataset="toy", split="test")


def test_equal_hops_pass():
    receipt = run(("torch", perfect), ("onnx", perfect), ("runtime", perfect))
    assert receipt.passed
    assert receipt.failed == ()
    assert receipt.images == 4
    for hop in receipt.hops:
        assert hop.passed
        assert (hop.score, hop.agreement_first, hop.agreement_previous) == (1, 1, 1)
        assert hop.details.keys() == {"boundary F1", "pixel accuracy", "IoU sky", "IoU road", "IoU car"}
        assert set(hop.details.values()) == {1}
        assert hop.ms_per_image >= 0
    require_passed(receipt)


def test_hop_that_flips_pixels_is_named_and_those_after_it_are_not():
    receipt = run(("torch", perfect), ("onnx", flipping(0.01)), ("runtime", flipping(0.01)))
    assert not receipt.passed
    assert receipt.failed == ("onnx",)
    assert [hop.passed for hop in receipt.hops] == [True, False, True]
    assert receipt.hops[2].agreement_previous == 1
    assert receipt.hops[2].agreement_first == pytest.approx(89 / 90)
    with pytest.raises(
        GateFailed, match=r"hop torch → onnx: label agreement 98\.89 % is below the budget of 99\.90 %"
    ):
        require_passed(receipt)


def test_first_hop_passes_however_bad():
    receipt = run(("torch", flipping(0.5)), ("onnx", flipping(0.5)))
    assert receipt.passed
    assert receipt.hops[0].details["pixel accuracy"] == pytest.approx(0.5)


def test_drop_in_miou_alone_fails():
    receipt = run(("torch", perfect), ("int8", flipping(0.1)), budget=Budget(min_agreement=0.5))
    (reason,) = receipt.hops[1].reasons
    assert receipt.failed == ("int8",)
    assert reason.startswith("hop torch → int8: mIoU falls by ")
    assert reason.endswith("points, more than the budget of 0.10")


def test_gain_in_miou_is_no_failure():
    assert run(("torch", flipping(0.1)), ("int8", perfect), budget=Budget(min_agreement=0.5)).passed


def test_pixels_that_are_not_valid_do_not_count():
    def noisy_left(image):
        labels = image[..., 0].copy()
        labels[:, :10] = 255
        return SimpleNamespace(labels=labels)

    assert run(("torch", perfect), ("onnx", noisy_left), budget=Budget(0, 1)).passed


def test_hop_with_its_own_budget():
    lossy = Budget(max_drop=0.1, min_agreement=0.9)
    receipt = run(("onnx", perfect), ("int8", flipping(0.02), lossy), ("engine", flipping(0.02)))
    assert receipt.passed
    assert [hop.budget for hop in receipt.hops] == [Budget(), lossy, Budget()]


def test_forms_of_one_model_are_compared_with_it_and_not_with_each_other():
    """Each errs in 5 % of the pixels, but in other ones."""

    def other(image):
        labels = image[..., 0].copy()
        labels[:, 95:] = (labels[:, 95:] + 1) % 3
        return SimpleNamespace(labels=labels)

    loose = Budget(max_drop=0.2, min_agreement=0.93)
    forms = [("int8", flipping(0.05), loose), ("int8 cpu", other, loose)]
    assert run(("onnx", perfect), *forms).failed == ("int8 cpu",)
    receipt = run(("onnx", perfect), *[(*form, "onnx") for form in forms])
    assert receipt.passed
    assert receipt.hops[2].agreement_previous == receipt.hops[2].agreement_first > 0.93
    strict = Budget(max_drop=0.2, min_agreement=0.99)
    receipt = run(("onnx", perfect), ("int8", perfect, strict, "onnx"), ("int8 cpu", other, strict, "onnx"))
    assert receipt.failed == ("int8 cpu",)
    assert "hop onnx → int8 cpu" in receipt.hops[2].reasons[0]


def test_small_losses_that_add_up_fail_against_the_first_hop():
    chain = [("torch", perfect), *((f"hop{n}", flipping(n / 90)) for n in range(1, 4))]
    receipt = run(*chain, budget=Budget(max_drop=1, min_agreement=0.975))
    assert receipt.failed == ("hop3",)
    assert "hop torch → hop3: label agreement 96.67 %" in receipt.hops[3].reasons[0]


def test_close_figures_are_told_apart():
    receipt = run(("torch", perfect), ("onnx", flipping(1 / 90)), budget=Budget(1, 89 / 90 + 1e-6))
    assert "agreement 98.8889 % is below the budget of 98.8890 %" in receipt.hops[1].reasons[0]


def test_samples_are_streamed_once():
    alive = []

    def stream():
        for sample in samples():
            alive.append(sample[0])
            yield sample

    def model(image):
        seen.append(len(alive))
        return perfect(image)

    seen = []
    run_hops([Hop("a", model, 0), Hop("b", model, 0)], stream(), SCORER)
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4]


def test_receipt_is_json_and_back():
    receipt = run(("torch", perfect), ("onnx", flipping(0.01)))
    assert msgspec.json.decode(msgspec.json.encode(receipt), type=Receipt) == receipt


def test_table_shows_every_hop_and_why_one_failed():
    receipt = run(("torch", perfect), ("onnx", flipping(0.01)))
    title, header, rule, first, second, *reasons = table(receipt).splitlines()
    assert title == "toy test, 4 images"
    assert len(header) == len(rule)
    assert (first.split()[0], first.split()[-1]) == ("torch", "passed")
    assert (second.split()[0], second.split()[-1]) == ("onnx", "FAILED")
    assert tuple(reasons) == receipt.hops[1].reasons


def test_the_table_says_where_int8_is_slower_on_a_cpu():
    hops = {"onnx": 10.0, "int8": 30.0, "int8 cpu": 12.5, "onnxruntime int8": 20.0, "openvino int8": 11.0}
    receipt = run(*((name, perfect) for name in hops))

    def noted(*names):
        timed = [msgspec.structs.replace(hop, ms_per_image=hops[hop.name]) for hop in receipt.hops]
        kept = tuple(hop for hop in timed if not names or hop.name in names)
        return table(msgspec.structs.replace(receipt, hops=kept)).splitlines()[-1]

    both = "int8 cpu 0.80× (12.50 ms against 10.00); onnxruntime int8 0.50× (20.00 ms against 10.00); "
    other = "openvino int8 0.91× (11.00 ms against 10.00); "
    assert noted().startswith(f"INT8 is slower than fp32 here: {both}{other}")
    assert noted("onnx", "openvino int8").startswith(f"INT8 is slower than fp32 here: {other}")
    hops["int8 cpu"] = 8.0  # of this table, INT8 is the fastest
    assert not noted("onnx", "int8 cpu", "openvino int8").startswith("INT8 is slower")
    assert not noted("torch", "int8 cpu").startswith("INT8 is slower")


def test_no_samples_is_an_error():
    with pytest.raises(UserError, match="nothing to verify: the data set"):
        run_hops([Hop("torch", perfect, 0)], [], SCORER)


def test_wrong_size_names_hop_and_sample():
    def cropping(image):
        return SimpleNamespace(labels=image[:-1, :, 0])

    with pytest.raises(UserError, match=r"hop onnx, sample sample-0: sizes differ"):
        run(("torch", perfect), ("onnx", cropping))


def test_label_out_of_range_names_the_sample():
    bad = [("img7", np.zeros((2, 2, 1), np.uint8), np.full((2, 2), 9, np.uint8), np.ones((2, 2), bool))]
    with pytest.raises(UserError, match="sample img7: label id 9 is out of range: there are 3 classes"):
        run_hops([Hop("torch", perfect, 0)], bad, SCORER)


@pytest.mark.parametrize("scorer", [SCORER, RegressionScorer])
def test_no_valid_pixel_is_an_error(scorer):
    blank = np.zeros((4, 4, 1), np.uint8)
    sample = ("blank", blank, blank[..., 0], np.zeros((4, 4), bool))

    def model(image):
        values = image[..., 0].astype(np.float32)
        return SimpleNamespace(labels=image[..., 0], values=values, valid=values > 0)

    with pytest.raises(UserError, match="nothing to verify: no pixel of any image is valid"):
        run_hops([Hop("torch", model, 0)], [sample], scorer)


def test_grasps_without_a_valid_pixel_are_an_error():
    grasp = np.array([[2.0, 2.0, 0.0, 2.0, 1.0]])

    def model(image):
        return SimpleNamespace(labels=image[..., 0], grasps=grasp, qualities=np.ones(1))

    sample = ("blank", np.zeros((4, 4, 1), np.uint8), grasp, np.zeros((4, 4), bool))
    with pytest.raises(UserError, match="nothing to verify: no pixel of any image is valid"):
        run_hops([Hop("torch", model, 0)], [sample], GraspScorer)
