"""Every student as deployed: equal to torch, close to it in INT8, and without findings of the linter."""

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from deploy.backends.core import completed, normalized
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.manifest import InputSpec
from deploy.lint import lint
from deploy.lint.dla_alone import not_alone
from deploy.quantize.core_form import core_form, cut
from deploy.quantize.qdq import cpu_form, insert, layers
from deploy.quantize.tensorrt_form import tensorrt_form
from distill.export.deployable import Deployable
from distill.export.parity import device_form
from distill.export.to_onnx import export_onnx
from distill.quantization.qat import to_qat
from tests.deploy.quantize.cores import core_logits
from tests.deploy.quantize.nets import operators, ranges_of, run
from tests.deploy.quantize.placement import misplaced
from tests.student.networks import SMALL, settled, small

DEPTH = InputSpec(("near", "far"), 40, 52, "float32", "NCHW", mean=(1.0, 2.0), std=(0.5, 0.7), nodata="nan")
DECODED = {"deeplabv3plus/mobilenetv2_100", "edge-nano", "edge-small", "edge-medium"}
"""Students whose logits are enlarged to the size of the image."""
SLOW = {"deeplabv3plus/mobilenetv2_100", "edge-medium"}
CASES = [
    pytest.param((arch, {}), marks=pytest.mark.slow if arch in SLOW else (), id=arch) for arch in SMALL
] + [
    pytest.param(("unet", {"up": "transposed"}), id="unet-transposed"),
    pytest.param(
        ("edge-nano", {"output_stride": 2, "stride": 16, "depths": (1, 2, 1, 1)}),
        marks=pytest.mark.slow,
        id="edge-fine",
    ),
]


def depth_images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = rng.normal(0, 1, (count, 1, 2, 5, 13)).repeat(8, 3).repeat(4, 4)
    return list((smooth * 0.6 + [[[1.0]], [[2.0]]]).astype(np.float32))


@pytest.fixture(scope="module", params=CASES)
def exported(request):
    arch, options = request.param
    images = depth_images(12)
    normal = torch.from_numpy(np.concatenate(images) - [[[1.0]], [[2.0]]]).float() / 0.6
    network = settled(small(arch, **options), normal)
    return arch, network, normal, export_onnx(device_form(network, DEPTH, fold=True), 20)


def test_onnx_computes_what_torch_does(exported):
    arch, network, _, model = exported
    images = depth_images(3, seed=1)
    with torch.no_grad():
        labels, logits = Deployable(network, DEPTH)(torch.from_numpy(np.concatenate(images)))
    ours = run(model, images, optimize=False)
    np.testing.assert_allclose(ours[1], logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(run(model, images)[1], logits.numpy(), atol=1e-4)
    assert (ours[0] == labels.numpy()).mean() > 0.999
    kinds = Counter(operators(model))
    assert kinds["ConvTranspose"] == kinds["BatchNormalization"] == 0
    assert (kinds["MatMul"] > 0) == (arch in DECODED)


def test_any_batch(exported):
    *_, model = exported
    images = depth_images(3, seed=1)
    together, alone = run(model, [np.concatenate(images)])[1], run(model, images)[1]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_int8_runs_in_integers_and_stays_close(exported, tmp_path):
    arch, _, _, model = exported
    images = depth_images(4)
    most = 0.35 if arch not in DECODED else 0.65  # random weights, and fifty more layers to lose accuracy in
    int8 = insert(model, ranges_of(model, images, 1.1))
    _, exact = run(model, images)
    for form in (tensorrt_form(int8), cpu_form(int8)):
        _, rounded = run(form, images)
        assert np.sqrt(np.mean((rounded - exact) ** 2)) < most * exact.std()
    file = str(tmp_path / "optimized.onnx")
    run(cpu_form(int8), images[:1], dump=file)
    kinds = Counter(operators(file))
    assert kinds["Conv"] + kinds["FusedConv"] == 1  # the classifier
    assert kinds["QLinearConv"] == sum(layer.kind == "Conv" for layer in layers(model)) - 1


def test_the_form_for_tensorrt_keeps_fast_operators_together_and_typed(exported):
    *_, model = exported
    assert misplaced(tensorrt_form(insert(model, ranges_of(model, depth_images(2))))) == []


def test_the_linter_has_no_complaints(exported):
    *_, model = exported
    int8 = insert(model, ranges_of(model, depth_images(2)))
    unsigned, half = cpu_form(int8), tensorrt_form(int8)
    for target, form in {
        "onnxruntime": unsigned,
        "openvino": unsigned,
        "tensorrt-10": half,
        "tensorrt-rtx": half,
    }.items():
        for one in (model, form):
            assert [found for found in lint(one, target) if found.level == "error"] == []
        warnings = [found for found in lint(form, target) if found.level == "warning"]
        # the last convolution gives floats
        assert [found for found in warnings if found.rule != "unquantized-output"] == []


def test_training_in_simulated_int8_computes_what_the_int8_model_does(exported):
    _, network, normal, model = exported
    qat = to_qat(network, normal[:2], [normal[:4]])
    ranges = qat.ranges(model)
    assert len(ranges) == len(qat.log_ranges)
    images = depth_images(3, seed=1)
    batch = torch.from_numpy(np.concatenate(images))
    with torch.no_grad():
        simulated, expected = (Deployable(one, DEPTH)(batch)[1].numpy() for one in (qat, network))
    _, int8 = run(insert(model, ranges), images, optimize=False)
    assert np.abs(int8 - simulated).mean() <= 0.5 * np.abs(simulated - expected).mean()


def test_the_core_gives_the_labels_of_the_whole_network(exported):
    """Also where, as here by the odd size, no DLA runs it."""
    *_, model = exported
    images = np.concatenate(depth_images(3, seed=1))
    whole = OrtEngine(model, threads=1, optimize=False).run(images)
    logits = core_logits(cut(model, DEPTH, len(images)), normalized(images, DEPTH))
    assert_array_equal(logits, whole["logits"])
    assert_array_equal(completed(logits, DEPTH)["labels"], whole["labels"])
    core = core_form(model, DEPTH, len(images))
    logits = core_logits(core, normalized(images, DEPTH).astype(np.float16))
    assert (completed(logits.astype(np.float32), DEPTH)["labels"] == whole["labels"]).mean() > 0.98


def test_an_edge_student_is_for_a_dla_alone():
    spec = InputSpec(DEPTH.channels, 96, 192, "float32", "NCHW", mean=DEPTH.mean, std=DEPTH.std, nodata="nan")
    model = export_onnx(device_form(small("edge-nano", num_outputs=11).eval(), spec, fold=True), 20)
    core = core_form(model, spec, 2)
    assert not_alone(core) == ""
    images = np.random.default_rng(0).normal(1, 1, (2, 2, 96, 192)).astype(np.float32)
    whole = OrtEngine(model, threads=1, optimize=False).run(images)
    assert_array_equal(completed(whole["logits"], spec)["labels"], whole["labels"])
    logits = core_logits(core, normalized(images, spec).astype(np.float16))
    np.testing.assert_allclose(logits, whole["logits"], atol=0.02 * np.abs(whole["logits"]).max())
