"""Networks by name, and what they weigh."""

import pytest
import torch

from deploy.errors import UserError
from student.zoo import STUDENTS, build_network, count_macs, count_parameters, student_lines


@pytest.mark.parametrize("arch", [*STUDENTS, "pspnet/efficientnet_lite0"])
def test_every_student_trains_and_infers(arch):
    network = build_network(arch, 2, 3, head_channels=32, output_stride=16)
    output = network.train()(torch.randn(2, 2, 64, 64))
    (output.logits.mean() + output.aux.mean()).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.eval()(torch.randn(1, 2, 64, 64)).logits.shape == (1, 3, 4, 4)


def test_counts_match_a_count_by_hand():
    network = build_network("pspnet/resnet18", 3, 11, head_channels=128, aux=True)
    backbone = sum(p.numel() for p in network.backbone.parameters())
    # four 1×1 reductions 512→128 with norms, 3×3 head 1024→128 with norm, 1×1 classifier with bias
    head = 4 * (512 * 128 + 256) + (9 * 1024 * 128 + 256) + (128 * 11 + 11)
    assert count_parameters(network) == backbone + head

    class Convolution(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 16, 3, padding=1)

        def forward(self, x):
            return self.layer(x)

    assert count_macs(Convolution(), 3, (10, 20)) == 10 * 20 * 16 * 3 * 9


def test_counting_leaves_the_network_alone():
    network = build_network("pspnet/resnet18", 3, 11, head_channels=32)
    network.train()
    count_macs(network, 3, (64, 64))
    assert network.training
    assert next(network.parameters()).device.type == "cpu"


def test_listing_has_a_line_for_each_student():
    lines = list(student_lines(["pspnet/efficientnet_lite0"], 3, 11, (304, 304)))
    assert [line.split()[0] for line in lines] == ["student", *STUDENTS, "pspnet/efficientnet_lite0"]


def test_unknown_name_lists_the_known():
    with pytest.raises(UserError, match=r"unknown network 'unet9'.*pspnet/resnet50"):
        build_network("unet9", 3, 11)
