"""Training with masked batch norms, and the networks that it leaves for export and quantization."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from distill.config import ModelConfig
from distill.distillation.weight_transfer import init_from_teacher
from distill.export.deployable import Deployable
from distill.export.to_onnx import export_onnx
from distill.pipeline.prepare import prepare
from distill.quantization.qat import to_qat
from distill.run import parse
from distill.training.activation_checkpointing import checkpointed
from distill.training.checkpoint import load_network
from distill.training.sync_norm import CountedBatchNorm, check_norms, norms_again, step_norms, sync_norms
from teacher.pspnet import PSPNet
from tests.distill.training.masked_training import CONFIG, MASKED, MEAN, STD, new_network, trained
from tests.distill.training.norms import Device, counted, patches, rng


class TestTraining:
    def test_the_network_keeps_its_modules(self, tmp_path, accelerator):
        network = trained(tmp_path / "masked", replace(MASKED, ema=0.5, accumulate=2), accelerator)
        plain = new_network(aux=False)
        load_network(plain, tmp_path / "masked" / "best.safetensors")
        assert [type(m) for m in network.modules()] == [type(m) for m in plain.modules()]
        other = trained(tmp_path / "plain", replace(CONFIG, ema=0.5, accumulate=2), accelerator)
        network.load_state_dict(other.state_dict())

    def test_with_all_pixels_valid_training_is_bit_identical(self, tmp_path, accelerator):
        states = [
            trained(tmp_path / name, config, accelerator, whole=True, scale=(1.0, 1.0)).state_dict()
            for name, config in (("plain", CONFIG), ("masked", MASKED))
        ]
        assert all(torch.equal(states[1][name], value) for name, value in states[0].items())

    def test_it_differs_where_many_pixels_are_invalid(self, tmp_path, accelerator):
        plain, network = (
            trained(tmp_path / name, config, accelerator, scale=(0.3, 0.3))
            for name, config in (("plain", CONFIG), ("masked", MASKED))
        )
        # padding is constant, so that it makes the variance too small; both start from 1
        moved = (
            n.get_buffer("encoder.blocks.0.0.1.running_var") - 0.9**CONFIG.steps for n in (network, plain)
        )
        of_valid, of_all = moved
        assert (of_valid > 2 * of_all).all()

    def test_recomputed_activations_do_not_update_statistics_twice(self):
        def two_steps(enabled):
            torch.manual_seed(0)
            network = PSPNet("mobilenetv3_small_050", 2, 3, output_stride=16, head_channels=16, dropout=0.0)
            for step in range(2):
                image = torch.randn(3, 2, 64, 64, generator=rng(step))
                mode = counted(patches((3, 64, 64), seed=step))
                with checkpointed(network.train(), enabled), mode:
                    output = network(image)
                    (output.logits.square().mean() + output.aux.square().mean()).backward()
            return network.state_dict(), [parameter.grad for parameter in network.parameters()]

        (plain, gradients), (again, gradients_again) = two_steps(False), two_steps(True)
        assert all(torch.equal(again[name], value) for name, value in plain.items())
        assert all(map(torch.equal, gradients, gradients_again))

    def test_a_batch_with_one_valid_image_trains(self):
        """The norm behind the pooling over the whole image then has one value."""
        torch.manual_seed(0)
        network = PSPNet("mobilenetv3_small_050", 2, 3, output_stride=16, head_channels=16).train()
        valid = torch.zeros(2, 64, 64, dtype=torch.bool)
        valid[1, :20] = True
        with counted(valid):
            network(torch.randn(2, 2, 64, 64)).logits.square().mean().backward()
        assert all(
            parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters()
        )
        assert all(buffer.isfinite().all() for buffer in network.buffers())

    def test_a_shallower_student_is_initialized_from_a_teacher_trained_so(self):
        torch.manual_seed(0)
        teacher = PSPNet("resnet26", 2, 3, output_stride=32, head_channels=8).train()
        with counted(patches((2, 64, 64), seed=3) | (torch.arange(2) == 1)[:, None, None]):
            teacher(torch.randn(2, 2, 64, 64))
        student = PSPNet("resnet26", 2, 3, output_stride=32, head_channels=8)
        assert init_from_teacher(student, teacher) == 1.0
        assert torch.equal(
            student.state_dict()["head.1.running_var"], teacher.state_dict()["head.1.running_var"]
        )

    def test_a_network_without_norms_is_refused(self):
        with pytest.raises(
            UserError, match=r"--student-train\.masked-norm: Conv2d has no batch norms; leave it out"
        ):
            check_norms("student-train", MASKED, nn.Conv2d(1, 1, 1))
        check_norms("student-train", MASKED, new_network())
        check_norms("student-train", CONFIG, nn.Conv2d(1, 1, 1))
        check_norms("teacher-train", replace(MASKED, steps=0), nn.Conv2d(1, 1, 1))

    def test_the_mistake_is_found_before_anything_is_written(self, tmp_path):
        config = parse(
            f"quick-grasp --out {tmp_path / 'run'} --data.synthetic-counts 8 1 1 --precision fp32".split()
        )
        student = ModelConfig("ggcnn")
        training = replace(config.student_train, masked_norm=True)
        with pytest.raises(UserError, match="GGCNN has no batch norms"):
            prepare(replace(config, student=student, student_train=training))
        assert not (tmp_path / "run").exists()

    def test_masked_norms_are_not_replaced_on_several_gpus(self):
        shell, gpus = nn.Sequential(nn.BatchNorm2d(3)), Device(2, "cuda")
        assert sync_norms(shell, gpus, masked=True) is shell
        with step_norms(gpus, masked=True):
            assert isinstance(norms_again(), CountedBatchNorm)
        assert isinstance(sync_norms(shell, gpus)[0], nn.SyncBatchNorm)
        with step_norms(gpus):
            assert not isinstance(norms_again(), CountedBatchNorm)


@pytest.fixture(scope="module")
def network(tmp_path_factory, accelerator):
    return trained(tmp_path_factory.mktemp("device") / "masked", MASKED, accelerator).eval()


class TestDevice:
    def test_the_exported_network_is_the_trained_one_without_norms(self, network):
        spec = InputSpec(("VV", "VH"), 32, 32, "float32", "NCHW", MEAN, STD, "stretch", nodata="nan")
        deployable = Deployable(network, spec)
        model = export_onnx(deployable, 20)
        assert not {node.op_type for node in onnx.load_from_string(model).graph.node} & {"BatchNormalization"}
        image = torch.randn(2, 2, 32, 32, generator=rng(0)) * 5 - 15
        with torch.inference_mode():
            labels, logits = deployable(image)
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        on_device = [np.asarray(it) for it in session.run(["labels", "logits"], {"image": image.numpy()})]
        np.testing.assert_allclose(on_device[1], logits.numpy(), rtol=1e-4, atol=1e-4)
        assert (on_device[0] == labels.numpy()).mean() > 0.999

    def test_norms_fold_for_training_in_simulated_int8(self, network):
        image = torch.randn(2, 2, 32, 32, generator=rng(0))
        qat = to_qat(network, image, [image])
        assert not [m for m in qat.modules() if isinstance(m, nn.BatchNorm2d)]
        exact = qat.simulate(image, lambda _, x: x, lambda weight: weight).logits
        torch.testing.assert_close(exact, network(image).logits, rtol=1e-4, atol=1e-4)
