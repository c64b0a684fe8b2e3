"""The INT8 model of a student computes what training simulated, whatever its backbone."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from deploy.bundle.manifest import InputSpec
from deploy.quantize.qdq import insert, layers
from distill.export.deployable import Deployable
from distill.export.to_onnx import export_onnx
from distill.quantization.qat import to_qat
from teacher.fold import fold_pyramid
from teacher.pspnet import PSPNet
from tests.distill.quantization.test_qat import run, student


def operators(model):
    """How many nodes of each kind an ONNX model has."""
    return Counter(node.op_type for node in onnx.load_model_from_string(model).graph.node)


class TestExport:
    SPEC = InputSpec(("R", "G", "B"), 64, 80, "uint8", "NHWC", (90.0, 100.0, 110.0), (60.0, 61.0, 62.0))

    @pytest.mark.parametrize(
        "backbone",
        [
            "resnet18",
            pytest.param("mobilenetv3_small_050", marks=pytest.mark.slow),
            pytest.param("tf_efficientnet_lite0", marks=pytest.mark.slow),
        ],
    )
    def test_the_int8_model_is_what_training_simulated(self, backbone):
        network = student(backbone)
        raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 64, 80, 3), dtype=np.uint8))
        normal = (raw.permute(0, 3, 1, 2).float() - 100) / 60
        qat = to_qat(network, normal[:2], [normal])
        plain = Deployable(qat.plain(), self.SPEC)
        model = export_onnx(plain, 20)

        found, kinds = layers(model), operators(model)
        assert [layer.kind for layer in found] == [site.kind for site in qat.sites]
        assert sum(site.kind == "Conv" for site in qat.sites) == kinds["Conv"]
        assert kinds == operators(export_onnx(Deployable(fold_pyramid(network), self.SPEC), 20))

        with torch.no_grad():
            expected = plain(raw)[1].numpy()
            simulated = Deployable(qat, self.SPEC)(raw)[1].numpy()
        np.testing.assert_allclose(run(model, raw.numpy()), expected, atol=1e-4 * np.abs(expected).max())
        ranges = qat.ranges(model)
        assert len(ranges) == len(qat.log_ranges)
        int8 = run(insert(model, ranges), raw.numpy())
        assert (int8.argmax(1) == simulated.argmax(1)).mean() >= 0.99
        # Where the last bit of a sum decides a rounding the two part, and random weights let that grow.
        assert np.abs(int8 - simulated).mean() < 0.5 * np.abs(simulated - expected).mean()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit"])
def test_a_transformer_learns_the_ranges_of_its_convolutions_and_sums(backbone):
    """Its matrix products are quantized after training; sums that a normalization reads, and of tokens, never."""
    torch.manual_seed(0)
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8))
    normal = (raw.permute(0, 3, 1, 2).float() - 100) / 60
    qat = to_qat(PSPNet(backbone, 3, 5, head_channels=16).eval(), normal[:2], [normal])
    spec = InputSpec(("R", "G", "B"), 64, 96, "uint8", "NHWC", (100.0,) * 3, (60.0,) * 3)
    model = export_onnx(Deployable(qat.plain(), spec), 20)
    simulated = [layer for layer in layers(model) if layer.kind in ("Conv", "Add")]
    assert [layer.kind for layer in simulated] == [site.kind for site in qat.sites]
    assert len(layers(model)) > len(simulated)
    assert len(qat.ranges(model)) == len(qat.log_ranges)
