"""Networks of transformers: heads for segmentation, mask classification, and backbones."""

import pytest
import torch
import transformers
from torch.nn import functional as F

from deploy.errors import UserError
from teacher.external.hf_networks import HfSegmenter, hf_network, semantic_logits
from teacher.external.linear import LinearNetwork
from teacher.pspnet import PSPNet
from tests.teacher.external.hf_folders import BACKBONES, MAKERS, NAMES, saved

SEGMENTERS = [kind for kind in MAKERS if kind not in BACKBONES]
SQUARES = ("dpt", "eomt")


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_a_saved_network_computes_what_transformers_does(tmp_path, kind):
    original = saved(tmp_path / kind, kind)
    network = hf_network(str(tmp_path / kind), 3, len(NAMES), pretrained=True).eval()
    assert isinstance(network, HfSegmenter)
    assert network.new_tensors == ()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output, theirs = network(image), original(pixel_values=image)
    expected = (
        theirs["logits"]
        if "logits" in theirs
        else semantic_logits(theirs["class_queries_logits"], theirs["masks_queries_logits"])
    )
    torch.testing.assert_close(output.logits, expected)
    assert output.aux is None
    assert {"layer3", "layer4"} == set(output.features)
    assert all(maps.ndim == 4 and len(maps) == 2 for maps in output.features.values())


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_images_of_any_size_and_channels_and_other_classes(tmp_path, kind):
    saved(tmp_path / kind, kind)
    network = hf_network(str(tmp_path / kind), 2, 3, pretrained=True).train()
    assert isinstance(network, HfSegmenter)
    parts = {part for name in network.new_tensors for part in name.split(".")}
    assert parts & {"classifier", "head", "class_predictor"}
    output = network(torch.randn(2, 2, 60, 90))
    assert output.logits.shape[:2] == (2, 3)
    height, width = output.logits.shape[2:]
    assert height == width if kind in SQUARES else height < width
    output.logits.square().mean().backward()
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    assert first.in_channels == 2
    assert first.weight.grad.abs().sum() > 0


def test_scores_of_mask_classification_are_those_of_transformers():
    torch.manual_seed(0)
    classes, masks = torch.randn(1, 6, 6), torch.randn(1, 6, 16, 16)
    logits = semantic_logits(classes, masks)
    scores = torch.einsum("nqc,nqhw->nchw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    torch.testing.assert_close(logits.softmax(1), scores / scores.sum(1, keepdim=True))
    output = type("Output", (), {"class_queries_logits": classes, "masks_queries_logits": masks})
    processor = transformers.MaskFormerImageProcessor()
    [theirs] = processor.post_process_semantic_segmentation(output, target_sizes=[(16, 16)])
    enlarged = F.interpolate(logits, (16, 16))
    assert (enlarged.argmax(1)[0] == theirs).float().mean() > 0.99


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("head", ["pyramid", "linear"])
def test_backbones_get_a_pyramid_or_a_linear_head(tmp_path, kind, head):
    original = saved(tmp_path / kind, kind)
    network = hf_network(str(tmp_path / kind), 3, 4, pretrained=True, head=head).eval()
    assert isinstance(network, PSPNet if head == "pyramid" else LinearNetwork)
    patch = original.config.patch_size
    image = torch.randn(2, 3, 4 * patch, 6 * patch)
    with torch.no_grad():
        output = network(image)
        states = original(pixel_values=image, output_hidden_states=True).hidden_states
    assert output.logits.shape == (2, 4, 4, 6)
    assert {"layer3", "layer4", "head"} <= set(output.features)
    # after three of four blocks, with the final norm, which backbones of transformers apply to every map
    norm = original.layernorm if kind == "dinov2" else original.norm
    tokens = norm(states[3])[:, -24:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(output.features["layer3"], tokens)
    assert network.eval()(torch.randn(1, 3, 50, 50)).logits.shape[-1] == round(50 / patch)


def test_every_parameter_that_is_trained_takes_part_in_the_output(tmp_path):
    """Several processes refuse to train others, such as the token of masked pretraining."""
    saved(tmp_path / "dino", "dinov2")
    network = hf_network(str(tmp_path / "dino"), 3, 4, pretrained=True, head="linear").train()
    network(torch.randn(2, 3, 56, 56)).logits.square().mean().backward()
    without = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    assert without == []


def test_backbones_take_other_channels(tmp_path):
    saved(tmp_path / "dino", "dinov2")
    network = hf_network(str(tmp_path / "dino"), 5, 4, pretrained=True, head="linear").eval()
    assert network(torch.randn(1, 5, 56, 56)).logits.shape == (1, 4, 4, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "linear"}, "has a head of its own; leave out"),
        ({"head_channels": 64}, "has a head of its own"),
    ],
)
def test_options_of_backbones_are_not_for_heads(tmp_path, options, words):
    saved(tmp_path / "segformer", "segformer")
    with pytest.raises(UserError, match=words):
        hf_network(str(tmp_path / "segformer"), 3, 5, **options)


def test_a_network_that_does_not_segment_is_named(tmp_path):
    transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1).save_pretrained(
        tmp_path
    )
    with pytest.raises(
        UserError, match="a bert neither segments nor gives feature maps; give one such as segformer"
    ):
        hf_network(str(tmp_path), 3, 5)
