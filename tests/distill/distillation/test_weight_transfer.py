"""A student is initialized from its teacher's weights if both are of one family, and not at all otherwise."""

import pytest
import torch

from distill.config import DistillConfig
from distill.distillation.build import init_student
from distill.distillation.weight_transfer import init_from_teacher
from student.zoo import build_network


def network(arch, head_channels=16, seed=0):
    torch.manual_seed(seed)
    built = build_network(arch, 2, 3, output_stride=16, head_channels=head_channels)
    for buffer in built.buffers():  # batch norms with statistics of images
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return built


@pytest.fixture(scope="module")
def resnet34():
    return network("pspnet/resnet34", seed=1)


def test_blocks_are_spread_over_the_teachers_stages(resnet34):
    student = network("pspnet/resnet18")
    share = init_from_teacher(student, resnet34)
    own, theirs = student.state_dict(), resnet34.state_dict()
    assert share == 1
    # stages of 3, 4, 6 and 3 blocks give their first and last
    for stage, last in (("layer1", 2), ("layer2", 3), ("layer3", 5), ("layer4", 2)):
        for block, source in ((0, 0), (1, last)):
            for name in ("conv1.weight", "bn2.weight", "bn2.running_var"):
                ours = own[f"backbone.{stage}.{block}.{name}"]
                assert torch.equal(ours, theirs[f"backbone.{stage}.{source}.{name}"])
    for name in ("backbone.conv1.weight", "head.0.weight", "classifier.weight", "aux_head.0.weight"):
        assert torch.equal(own[name], theirs[name])


def test_an_equal_network_becomes_the_teacher(resnet34):
    student = network("pspnet/resnet34")
    assert init_from_teacher(student, resnet34) == 1
    image = torch.randn(2, 2, 48, 48)
    with torch.no_grad():
        assert torch.equal(student.eval()(image).logits, resnet34.eval()(image).logits)


def test_a_head_of_another_width_keeps_its_own_weights(resnet34):
    student = network("pspnet/resnet18", head_channels=8)
    before = student.state_dict()["head.0.weight"].clone()
    assert 0.9 < init_from_teacher(student, resnet34) < 1
    assert torch.equal(student.state_dict()["head.0.weight"], before)


@pytest.mark.parametrize("arch", ["pspnet/resnet50", "pspnet/mobilenetv3_small_050"])
def test_another_family_keeps_its_own_weights(arch, resnet34):
    student = network(arch)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    assert init_from_teacher(student, resnet34) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_the_teacher_is_not_changed(resnet34):
    """What the student learns later must not change the teacher: weights are copied, not shared."""
    student = network("pspnet/resnet18")
    init_from_teacher(student, resnet34)
    before = resnet34.state_dict()["backbone.conv1.weight"].clone()
    with torch.no_grad():
        student.get_parameter("backbone.conv1.weight").add_(1)
    assert torch.equal(resnet34.state_dict()["backbone.conv1.weight"], before)


@pytest.mark.parametrize(("start", "initialized"), [("teacher", True), ("own", False)])
def test_the_configuration_decides(start, initialized, resnet34):
    student = network("pspnet/resnet18")
    init_student(resnet34, student, DistillConfig(start=start))
    same = torch.equal(student.get_parameter("backbone.conv1.weight"), resnet34.backbone.conv1.weight)
    assert same == initialized
