"""Batch norms whose statistics are those of the valid pixels."""

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from distill.training.sync_norm import CountedBatchNorm, norms_again, step_norms
from distill.training.valid_maps import ValidMaps
from tests.distill.training.norms import NORMS, counted, images, results, rng, valid_pixels


def new_norm(dtype=torch.float64, make=nn.BatchNorm2d):
    norm = make(3).to(dtype)
    for index, parameter in enumerate(norm.parameters()):
        nn.init.normal_(parameter, generator=rng(index))
    return norm


class TestStatistics:
    """Only valid positions count, whatever the others hold."""

    @pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
    def test_equals_a_plain_norm_on_the_valid_positions_alone(self, kind):
        x, valid = images("", torch.float64)[0], valid_pixels()
        picked = x.permute(0, 2, 3, 1)[valid].T[None, :, :, None].contiguous()  # 1×C×M×1
        upstream = torch.randn(picked.shape, generator=rng(1), dtype=torch.float64)
        plain, norm = new_norm(make=kind), new_norm(make=kind)
        x.requires_grad_(True)
        picked.requires_grad_(True)
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
        """By the same affine function of x as the valid ones."""
        x, valid = images("", torch.float64)[0], valid_pixels()
        norm = nn.BatchNorm2d(3, momentum=1.0).double()
        with counted(valid):
            y = norm(x)
        count = int(valid.sum())
        norm.running_var *= (count - 1) / count
        torch.testing.assert_close(y, norm.eval()(x))

    @pytest.mark.parametrize("name", NORMS)
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
    def test_with_all_positions_valid_every_norm_is_the_ordinary_one(self, name, dtype, tolerance):
        expected = results(name, slice(None), dtype)
        with counted(torch.ones(5, 6, 5, dtype=torch.bool)):
            computed = results(name, slice(None), dtype)
        for key, value in expected.items():
            torch.testing.assert_close(computed[key], value, rtol=tolerance, atol=tolerance)

    def test_without_a_mask_the_ordinary_norm_runs(self, accelerator):
        with step_norms(accelerator, masked=True, valid=None):
            assert not isinstance(norms_again(), CountedBatchNorm)
        with step_norms(accelerator, masked=True, valid=valid_pixels()):
            assert isinstance(norms_again(), CountedBatchNorm)
        assert not isinstance(norms_again(), CountedBatchNorm)

    def test_evaluation_is_untouched(self):
        x, norm = images("", torch.float32)[0], new_norm(torch.float32).eval()
        with counted(valid_pixels()):
            assert torch.equal(norm(x), F.batch_norm(x, *_buffers(norm), norm.weight, norm.bias))

    def test_large_means_lose_no_precision(self):
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
        weight, bias = torch.randn(2, 3, generator=rng(0), dtype=torch.float64).requires_grad_(True)
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
    """No value, or a single one, has no variance."""

    @pytest.mark.parametrize("count", [0, 1])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_running_statistics_are_used_and_not_changed(self, count, dtype):
        x, norm = images("", dtype)[0].requires_grad_(True), new_norm(torch.float32)
        norm.running_mean.fill_(0.5)
        norm.running_var.fill_(3.0)
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

    def test_without_running_statistics_the_map_is_unchanged(self):
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


def _buffers(norm):
    return norm.running_mean, norm.running_var


def _statistics_of(norm):
    return {"mean": norm.running_mean, "var": norm.running_var}
