"""Batch norm over two processes is that of one process on the concatenated batch."""

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from distill.training.sync_norm import sync_norms
from student.zoo import build_network
from tests.distill.training.norms import NORMS, SPLITS, Device, counted, in_process, results, valid_pixels
from tests.distill.training.two import run_two


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The results of both processes."""
    return run_two(in_process, tmp_path_factory.mktemp("norms"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("split", range(len(SPLITS)), ids=[f"{n} of 5, {dtype}" for n, dtype in SPLITS])
@pytest.mark.parametrize("mask", [False, True], ids=["all", "valid"])
def test_norms_are_those_of_the_whole_batch(two, split, name, mask):
    dtype = SPLITS[split][1]
    with counted(valid_pixels() if mask else None):
        whole = results(name, slice(None), dtype)
    one, other = (part[split + mask * len(SPLITS)][name] for part in two)
    assert whole.keys() == one.keys()
    for key, expected in whole.items():
        if key in ("x", "y"):
            computed = torch.cat([one[key], other[key]])
        elif key.startswith("gradient"):
            computed = one[key] + other[key]
        else:
            computed = one[key]
            assert torch.equal(one[key], other[key])
        tolerance = 1e-12 if dtype == torch.float64 else 2e-5
        torch.testing.assert_close(computed, expected, rtol=tolerance, atol=tolerance)


def test_one_process_keeps_its_norms():
    shell = nn.Sequential(nn.BatchNorm2d(3))
    assert sync_norms(shell, Device(1, "cpu")) is shell
    assert sync_norms(shell, Device(1, "cuda")) is shell


def test_on_a_gpu_the_activation_inside_a_norm_stays():
    network = build_network("pspnet/mobilenetv3_small_050", 3, 4, head_channels=16).eval()
    activations = [type(norm.act) for norm in network.modules() if isinstance(norm, BatchNormAct2d)]
    image = torch.randn(1, 3, 64, 64)
    expected = network(image).logits
    parameters = dict(network.named_parameters())
    shell = sync_norms(nn.Sequential(network), Device(2, "cuda"))
    norms = [module for module in shell.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert [type(norm.act) for norm in norms if hasattr(norm, "act")] == activations
    assert nn.Hardswish in activations
    assert torch.equal(network(image).logits, expected)
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
