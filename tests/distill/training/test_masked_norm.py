"""Batch norms whose statistics are those of the valid pixels."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from accelerate import Accelerator
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from distill.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, TrainConfig
from distill.data.registry import open_splits
from distill.data.train_view import TrainView
from distill.distillation.weight_transfer import init_from_teacher
from distill.export.deployable import Deployable
from distill.export.to_onnx import export_onnx
from distill.pipeline.stages import prepare
from distill.quantization.qat import to_qat
from distill.run import parse
from distill.training.activation_checkpointing import checkpointed
from distill.training.checkpoint import load_network
from distill.training.loop import Stage, train
from distill.training.sync_norm import CountedBatchNorm, check_norms, norms_again, step_norms, sync_norms
from distill.training.valid_maps import ValidMaps
from student.unet import UNet
from teacher.pspnet import PSPNet
from tests.distill.training.norms import NORMS, Device, counted, images, results, valid_pixels

MEAN, STD = (-12.0, -19.0), (5.0, 5.0)


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


def patches(shape, seed=0):
    """Valid pixels N×H×W in patches, of none of the first image where there are several."""
    noise = torch.rand(shape[0], 1, -(-shape[1] // 8), -(-shape[2] // 8), generator=_rng(seed))
    valid = F.interpolate(noise, scale_factor=8)[:, 0, : shape[1], : shape[2]] > 0.5
    valid[0] = len(valid) == 1
    return valid


def _rng(seed):
    return torch.Generator().manual_seed(seed)


def new_norm(dtype=torch.float64, make=nn.BatchNorm2d):
    norm = make(3).to(dtype)
    for index, parameter in enumerate(norm.parameters()):
        nn.init.normal_(parameter, generator=_rng(index))
    return norm


class TestStatistics:
    """What counts is what is valid, whatever the rest holds."""

    @pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
    def test_valid_positions_are_those_of_a_plain_norm_on_nothing_else(self, kind):
        x, valid = images("", torch.float64)[0], valid_pixels()
        picked = x.permute(0, 2, 3, 1)[valid].T[None, :, :, None].contiguous()  # 1×C×M×1
        upstream = torch.randn(picked.shape, generator=_rng(1), dtype=torch.float64)
        plain, norm = new_norm(make=kind), new_norm(make=kind)
        x.requires_grad_(True), picked.requires_grad_(True)
        expected = plain(picked)
        (expected * upstream).sum().backward()
        with counted(valid):
            y = norm(x).permute(0, 2, 3, 1)[valid].T[None, :, :, None]
            (y * upstream).sum().backward()
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(x.grad.permute(0, 2, 3, 1)[valid].T[None, :, :, None], picked.grad)
        assert not x.grad.permute(0, 2, 3, 1)[~valid].any()
        for name, buffer in plain.named_buffers():  # the running variance is unbiased over what counts
            torch.testing.assert_close(norm.get_buffer(name), buffer)
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(norm.get_parameter(name).grad, parameter.grad)

    def test_what_lies_in_invalid_positions_does_not_matter(self):
        x, valid = images("", torch.float32)[0], valid_pixels()
        other = torch.where(valid[:, None], x, 1e4)
        norms = new_norm(torch.float32), new_norm(torch.float32)
        with counted(valid):
            y, of_other = (
                norm(one).permute(0, 2, 3, 1)[valid] for norm, one in zip(norms, (x, other), strict=True)
            )
        assert torch.equal(y, of_other)
        assert torch.equal(norms[0].running_var, norms[1].running_var)

    def test_all_positions_are_normalized_as_on_a_device(self):
        """By one affine function of x, that of the valid ones."""
        x, valid = images("", torch.float64)[0], valid_pixels()
        norm = nn.BatchNorm2d(3, momentum=1.0).double()
        with counted(valid):
            y = norm(x)
        count = int(valid.sum())
        norm.running_var *= (count - 1) / count
        torch.testing.assert_close(y, norm.eval()(x))

    @pytest.mark.parametrize("name", NORMS)
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
    def test_where_all_is_valid_every_norm_is_the_ordinary_one(self, name, dtype, tolerance):
        expected = results(name, slice(None), dtype)
        with counted(torch.ones(5, 6, 5, dtype=torch.bool)):
            computed = results(name, slice(None), dtype)
        for key, value in expected.items():
            torch.testing.assert_close(computed[key], value, rtol=tolerance, atol=tolerance)

    def test_nothing_masked_is_the_ordinary_norm_itself(self, accelerator):
        with step_norms(accelerator, masked=True, valid=None):
            assert not isinstance(norms_again(), CountedBatchNorm)
        with step_norms(accelerator, masked=True, valid=valid_pixels()):
            assert isinstance(norms_again(), CountedBatchNorm)
        assert not isinstance(norms_again(), CountedBatchNorm)

    def test_evaluation_is_untouched(self):
        x, norm = images("", torch.float32)[0], new_norm(torch.float32).eval()
        with counted(valid_pixels()):
            assert torch.equal(norm(x), F.batch_norm(x, *_buffers(norm), norm.weight, norm.bias))

    def test_large_means_lose_nothing(self):
        x, valid = images("", torch.float64)[0] + 1e4, valid_pixels()
        exact, norm = new_norm(), new_norm(torch.float32)
        with counted(valid):
            y = norm(x.float())
            torch.testing.assert_close(
                y.double(), exact(x.float().double()), rtol=1e-3, atol=5e-3
            )  # the step of float32
        torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-4, atol=0)


class TestGradient:
    """Through the statistics, at valid and invalid positions."""

    @pytest.mark.parametrize("running", [False, True])
    @pytest.mark.parametrize("valid", [valid_pixels(), valid_pixels() & False], ids=["some", "none"])
    def test_gradcheck(self, valid, running):
        x = images("", torch.float64)[0][:, :, :4, :3].requires_grad_(True)
        weight, bias = torch.randn(2, 3, generator=_rng(0), dtype=torch.float64).requires_grad_(True)
        maps = ValidMaps(valid[:, :4, :3])

        def norm(x, weight, bias):
            statistics = (
                (torch.zeros(3).double(), torch.full((3,), 2.0).double()) if running else (None, None)
            )
            with CountedBatchNorm(maps):
                return F.batch_norm(x, *statistics, weight, bias, training=True)

        assert torch.autograd.gradcheck(norm, (x, weight, bias))

    def test_gradcheck_through_a_strided_network(self):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(2, 3, 3, 2, 1),
            nn.BatchNorm2d(3),
            nn.Tanh(),
            nn.Conv2d(3, 2, 3, 2, 1),
            nn.BatchNorm2d(2),
        ).double()
        x = torch.randn(2, 2, 8, 8, dtype=torch.float64, requires_grad=True)
        valid = torch.zeros(2, 8, 8, dtype=torch.bool)
        valid[0, :5] = valid[1, 6, 2] = True

        def run(x):
            with counted(valid):
                return network(x)

        assert torch.autograd.gradcheck(run, (x,))


class TestTooFew:
    """Of nothing, or of one value, there is no variance."""

    @pytest.mark.parametrize("count", [0, 1])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_running_statistics_are_used_and_left(self, count, dtype):
        x, norm = images("", dtype)[0].requires_grad_(True), new_norm(torch.float32)
        norm.running_mean.fill_(0.5), norm.running_var.fill_(3.0)
        before = {name: buffer.clone() for name, buffer in _statistics_of(norm).items()}
        valid = torch.zeros(5, 6, 5, dtype=torch.bool)
        valid.view(-1)[7 : 7 + count] = True
        with counted(valid):
            y = norm(x)
            y.sum().backward()
        torch.testing.assert_close(y, F.batch_norm(x, *_buffers(norm), norm.weight, norm.bias))
        assert all(torch.equal(before[name], buffer) for name, buffer in _statistics_of(norm).items())
        for gradient in (x.grad, norm.weight.grad, norm.bias.grad):
            assert gradient.isfinite().all()

    def test_without_running_statistics_the_map_stays_as_it_is(self):
        x = images("", torch.float64)[0]
        norm = nn.BatchNorm2d(3, affine=False, track_running_stats=False, eps=0.0)
        with counted(valid_pixels() & False):
            assert torch.equal(norm(x), x)


class TestArithmetic:
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_half_precision_maps_have_statistics_in_float32(self, layout):
        x = images("", torch.float32)[0].bfloat16().to(memory_format=layout)
        norm, exact = new_norm(torch.float32), new_norm(torch.float32)
        with counted(valid_pixels()), torch.autocast("cpu", torch.bfloat16):
            y = norm(x)
        with counted(valid_pixels()):
            expected = exact(x.float())
        assert y.dtype == torch.bfloat16
        assert y.is_contiguous(memory_format=layout)
        torch.testing.assert_close(y, expected.bfloat16())
        assert norm.running_var.dtype == torch.float32
        torch.testing.assert_close(norm.running_var, exact.running_var)

    def test_memory_formats_agree(self):
        computed = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x = images("", torch.float32)[0].to(memory_format=layout).requires_grad_(True)
            norm = new_norm(torch.float32)
            with counted(valid_pixels()):
                y = norm(x)
                y.square().sum().backward()
            assert x.grad.is_contiguous(memory_format=layout)
            computed.append([y.detach(), x.grad, norm.running_mean, norm.running_var, norm.weight.grad])
        torch.testing.assert_close(*computed)


class TestMaps:
    @pytest.mark.parametrize("size", [(16, 24), (8, 12), (4, 6), (6, 6), (3, 3), (1, 1), (7, 5), (20, 26)])
    def test_a_position_counts_where_its_cell_holds_a_valid_pixel(self, size):
        valid = torch.rand(3, 16, 24, generator=_rng(0)) > 0.97
        maps = ValidMaps(valid).of(torch.zeros(3, 7, *size))
        for row, column in np.ndindex(size):
            rows, columns = (
                slice(i * n // cells, -(-(i + 1) * n // cells))
                for i, n, cells in ((row, 16, size[0]), (column, 24, size[1]))
            )
            assert torch.equal(maps[:, 0, row, column], valid[:, rows, columns].flatten(1).any(1).float())

    def test_an_image_with_one_valid_pixel_counts_on_every_map(self):
        valid = torch.zeros(2, 96, 96, dtype=torch.bool)
        valid[1, 50, 13] = True
        maps = ValidMaps(valid)
        for side in range(1, 97):
            of_map = maps.of(torch.zeros(2, 1, side, side))
            assert not of_map[0].any()
            assert of_map[1].any()
        assert maps.of(torch.zeros(2, 5)).tolist() == [[0], [1]]

    @pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 3, 4), (3, 3, 4, 4, 4)])
    def test_a_norm_over_something_else_is_refused(self, shape):
        with pytest.raises(UserError, match=r"masked batch norm: a norm reads .* of 3 images"):
            ValidMaps(torch.ones(3, 8, 8, dtype=torch.bool)).of(torch.zeros(shape))

    def test_each_size_is_made_once(self):
        maps = ValidMaps(patches((2, 16, 16)))
        assert maps.of(torch.zeros(2, 3, 4, 4)) is maps.of(torch.zeros(2, 9, 4, 4))


def new_network(seed=0, **options):
    torch.manual_seed(seed)
    return UNet(2, 2, width=4, depth=2, dropout=0.0, **options)


class Whole:
    """The samples of a reader of which every pixel is valid."""

    def __init__(self, reader):
        self.samples = [
            sample for sample in map(reader.__getitem__, range(len(reader))) if sample.valid.all()
        ]
        self.ids = [sample.id for sample in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def new_stage(folder, scale=(0.5, 2.0), whole=False):
    splits = open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(10, 1, 1)))
    augment, reader = (
        AugmentConfig(crop=(24, 24), scale=scale),
        Whole(splits.train) if whole else splits.train,
    )
    view = TrainView(reader, size=(32, 32), augment=augment, mean=MEAN, optical=False)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return Stage(folder.name, folder, view, mean, std, LossConfig(aux=0.0), seed=0)


CONFIG = TrainConfig(steps=4, batch_size=4, lr=0.01)
MASKED = replace(CONFIG, masked_norm=True)


def trained(folder, config, accelerator, network=None, **options):
    network = network or new_network(aux=False)
    train(network, new_stage(folder, **options), config, accelerator)
    return network


class TestTraining:
    def test_the_network_stays_what_it_is(self, tmp_path, accelerator):
        network = trained(tmp_path / "masked", replace(MASKED, ema=0.5, accumulate=2), accelerator)
        plain = new_network(aux=False)
        load_network(plain, tmp_path / "masked" / "best.safetensors")
        assert [type(m) for m in network.modules()] == [type(m) for m in plain.modules()]
        other = trained(tmp_path / "plain", replace(CONFIG, ema=0.5, accumulate=2), accelerator)
        network.load_state_dict(other.state_dict())

    def test_where_all_is_valid_it_is_ordinary_training_bit_by_bit(self, tmp_path, accelerator):
        states = [
            trained(tmp_path / name, config, accelerator, whole=True, scale=(1.0, 1.0)).state_dict()
            for name, config in (("plain", CONFIG), ("masked", MASKED))
        ]
        assert all(torch.equal(states[1][name], value) for name, value in states[0].items())

    def test_it_differs_where_much_is_not(self, tmp_path, accelerator):
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

    def test_activations_computed_again_do_not_move_statistics_again(self):
        def two_steps(enabled):
            torch.manual_seed(0)
            network = PSPNet("mobilenetv3_small_050", 2, 3, output_stride=16, head_channels=16, dropout=0.0)
            for step in range(2):
                image = torch.randn(3, 2, 64, 64, generator=_rng(step))
                mode = counted(patches((3, 64, 64), seed=step))
                with checkpointed(network.train(), enabled), mode:
                    output = network(image)
                    (output.logits.square().mean() + output.aux.square().mean()).backward()
            return network.state_dict(), [parameter.grad for parameter in network.parameters()]

        (plain, gradients), (again, gradients_again) = two_steps(False), two_steps(True)
        assert all(torch.equal(again[name], value) for name, value in plain.items())
        assert all(map(torch.equal, gradients, gradients_again))

    def test_a_batch_of_which_one_image_is_valid_trains(self):
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

    def test_a_shallower_student_inherits_from_a_teacher_trained_so(self):
        torch.manual_seed(0)
        teacher = PSPNet("resnet26", 2, 3, output_stride=32, head_channels=8).train()
        with counted(patches((2, 64, 64), seed=3) | (torch.arange(2) == 1)[:, None, None]):
            teacher(torch.randn(2, 2, 64, 64))
        student = PSPNet("resnet26", 2, 3, output_stride=32, head_channels=8)
        assert init_from_teacher(student, teacher) == 1.0
        assert torch.equal(
            student.state_dict()["head.1.running_var"], teacher.state_dict()["head.1.running_var"]
        )

    def test_no_norms_to_mask_is_a_mistake(self):
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

    def test_several_gpus_keep_norms_that_a_mask_reaches(self):
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
        image = torch.randn(2, 2, 32, 32, generator=_rng(0)) * 5 - 15
        with torch.inference_mode():
            labels, logits = deployable(image)
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        on_device = session.run(["labels", "logits"], {"image": image.numpy()})
        np.testing.assert_allclose(on_device[1], logits.numpy(), rtol=1e-4, atol=1e-4)
        assert (on_device[0] == labels.numpy()).mean() > 0.999

    def test_norms_fold_for_training_in_simulated_int8(self, network):
        image = torch.randn(2, 2, 32, 32, generator=_rng(0))
        qat = to_qat(network, image, [image])
        assert not [m for m in qat.modules() if isinstance(m, nn.BatchNorm2d)]
        exact = qat.simulate(image, lambda _, x: x, lambda weight: weight).logits
        torch.testing.assert_close(exact, network(image).logits, rtol=1e-4, atol=1e-4)


def _buffers(norm):
    return norm.running_mean, norm.running_var


def _statistics_of(norm):
    return {"mean": norm.running_mean, "var": norm.running_var}
