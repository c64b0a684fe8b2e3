"""A network in simulated INT8 computes what an INT8 model does, under all conditions of training."""

import copy

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from deploy.quantize import qdq
from distill.export.deployable import Deployable
from distill.export.to_onnx import export_onnx
from distill.quantization.qat import to_qat
from student.zoo import build_network
from teacher.pspnet import Output
from tests.distill.tiny import tiny_net

MEAN, STD = (-12.0, -19.0), (5.0, 5.0)


def images(count=4, channels=2, size=(32, 32), seed=0):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def tiny_qat(seed=0):
    return to_qat(tiny_net(seed), images(), [images(seed=1)])


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def student(backbone):
    torch.manual_seed(0)
    network = build_network(f"pspnet/{backbone}", 3, 5, output_stride=16, head_channels=16, dropout=0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: fresh norms leave biases at 0
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.weight, 0.3, 0.6)
    return network.eval()


def run(model, raw):
    """Logits of an ONNX model without any optimization."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": raw})[0])


class TestSimulation:
    def test_equals_integer_arithmetic_by_hand(self):
        network = tiny_net().eval()
        network.backbone[1].running_mean += 0.3
        qat, x = tiny_qat(), images(seed=5)
        first, second = qdq.scale_above((qat.log_ranges.detach() * 10).exp().numpy() / 127)

        def quantized(x, scale):
            return np.clip(np.rint(x / scale), -128, 127) * scale

        def convolve(x, module, stride):
            weight = module.weight.detach().numpy()
            grid = qdq.scale_above(np.abs(weight).max((1, 2, 3), keepdims=True) / 127)
            blocks = x.reshape(len(x), x.shape[1], x.shape[2] // stride, stride, -1, stride)
            summed = np.einsum("nchiwj,kcij->nkhw", blocks, quantized(weight, grid))
            return summed + module.bias.detach().numpy()[:, None, None]

        plain = qat.plain()
        features = np.maximum(convolve(quantized(x.numpy(), first), plain.backbone[0], 4), 0)
        expected = convolve(quantized(features, second), plain.classifier, 1)
        with torch.no_grad():
            np.testing.assert_allclose(qat(x).logits, expected, atol=1e-5)
            assert not torch.allclose(plain(x).logits, qat(x).logits, atol=1e-5)

    def test_folding_norms_changes_nothing(self):
        network = tiny_net()
        network.backbone[1].running_mean += 0.3
        network.backbone[1].running_var *= 3
        plain, x = to_qat(network, images(), [images()]).plain(), images(seed=5)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
        torch.testing.assert_close(plain(x).logits, network.eval()(x).logits)

    def test_the_auxiliary_head_is_trained_and_stays_in_float(self):
        qat = tiny_qat()
        qat.network.dropout.p = 0.0
        assert [site.weight for site in qat.sites] == ["backbone.0.weight", "classifier.weight"]
        assert qat(images()).aux is None
        output = qat.train()(images())
        output.aux.sum().backward()
        with torch.no_grad():
            qat.network.aux_head.weight *= 1 + 1e-4  # less than a step of any grid, but seen
            assert not torch.equal(qat(images()).aux, output.aux)
        assert qat.network.aux_head.weight.grad.abs().sum() > 0
        assert qat.network.backbone[0].weight.grad.abs().sum() > 0

    def test_every_parameter_of_a_student_learns_on_images_of_any_size(self):
        """At 6×6 cells the pyramid pools by averages, at 4×3 by matrices."""
        network = student("mobilenetv3_small_050")
        small, large = images(2, 3, (64, 48)), images(2, 3, (96, 96))
        qat, other = to_qat(network, small, [large]), to_qat(network, large, [large])
        with torch.inference_mode():
            assert torch.equal(qat(large).logits, other(large).logits)
        for size in (small, large):
            output = qat.train()(size)
            (output.logits.square().sum() + output.aux.square().sum()).backward()
            assert [name for name, p in qat.named_parameters() if p.grad is None] == []
            qat.zero_grad()

    def test_autocast_keeps_the_grids(self):
        qat, x = tiny_qat(), images(seed=2)
        with torch.autocast("cpu", torch.bfloat16):
            output = qat.train()(x)
            output.logits.float().sum().backward()
        assert output.logits.dtype == torch.bfloat16
        qat.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            half = qat(x).logits.float()
        torch.testing.assert_close(half, qat(x).logits, atol=0.03, rtol=0.03)
        assert qat.log_ranges.grad.isfinite().all()

    def test_a_copy_is_independent(self):
        qat = tiny_qat()
        other, before = copy.deepcopy(qat), qat(images()).logits
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.5)
        assert torch.equal(qat(images()).logits, before)
        assert not torch.equal(other(images()).logits, before)
        assert torch.equal(copy.deepcopy(qat)(images()).logits, before)

    def test_a_norm_that_no_convolution_precedes_keeps_its_statistics(self):
        network = nn.Sequential(nn.BatchNorm2d(2), tiny_net())
        qat = to_qat(network, images(), [images()]).train()
        qat(images() + 7)
        assert qat.network[0].running_mean.tolist() == [0, 0]
        assert qat.network[1].dropout.training


class TestErrors:
    def test_no_convolution(self):
        with pytest.raises(UserError, match=r"no convolution to quantize; train another student"):
            to_qat(nn.ReLU(), images(), [images()])

    def test_no_calibration_images(self):
        with pytest.raises(UserError, match=r"no calibration images; give some of the training split"):
            to_qat(tiny_net(), images(), [])

    def test_values_that_are_not_finite(self):
        with pytest.raises(UserError, match=r"activations are not finite on the calibration images"):
            to_qat(tiny_net(), images(), [images() * torch.inf])

    def test_a_network_whose_norms_cannot_be_folded(self):
        class Twice(type(tiny_net())):
            def forward(self, x):
                logits = super().forward(x).logits
                return Output(logits + self.backbone[0](x)[:, :2], None)

        network = Twice()
        network.backbone[1].running_var *= 9
        with pytest.raises(UserError, match=r"changes when its batch norms are folded .* use post-training"):
            to_qat(network, images(), [images()])

    def test_a_network_that_adds_a_number(self):
        class Shifted(type(tiny_net())):
            def forward(self, x):
                logits = super().forward(x).logits
                return Output(logits + logits.mean(), None)

        with pytest.raises(UserError, match=r"features of this network cannot be traced; use post-training"):
            to_qat(Shifted(), images(), [images()])

    def test_a_network_that_changes_between_calls(self):
        class Fickle(type(tiny_net())):
            def forward(self, x):
                return super().forward(x) if len(x) != 3 else Output(x, None)

        qat = to_qat(Fickle(), images(), [images()])
        with pytest.raises(
            UserError, match=r"layers of this network change from run to run; use post-training"
        ):
            qat(images(3))

    def test_a_network_that_differs_between_sizes(self):
        class Growing(type(tiny_net())):
            def forward(self, x):
                return super().forward(
                    x if x.shape[-1] == 32 else self.backbone[0](x)[:, :2].repeat(1, 1, 4, 4)
                )

        qat = to_qat(Growing(), images(), [images()])
        with pytest.raises(
            UserError, match=r"on images of 32×64 this network has other layers; train on images of"
        ):
            qat(images(size=(32, 64)))

    def test_the_onnx_model_of_another_network(self):
        spec = InputSpec(("VV", "VH"), 32, 32, "float32", "NCHW", MEAN, STD, nodata="nan")
        model = export_onnx(Deployable(nn.Sequential(tiny_qat().plain()), spec), 20)
        with pytest.raises(UserError, match=r"not that of the network trained in INT8; export it again"):
            tiny_qat().ranges(model)
