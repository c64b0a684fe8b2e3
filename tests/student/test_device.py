"""What is exported has no batch norm and no parallel branch of a convolution, whatever the network."""

import io
from collections import Counter

import onnx
import pytest
import torch

from deploy.bundle.manifest import InputSpec
from distill.export.parity import device_form
from distill.export.to_onnx import export_onnx
from student.zoo import build_network
from tests.student.networks import SMALL, settled, small

SPEC = InputSpec(("a", "b"), 64, 64, "float32", "NCHW", mean=(0.0, 0.0), std=(1.0, 1.0), nodata="nan")
FAMILIES = {
    "pspnet/resnet18": {"head_channels": 16},
    "pspnet/resnet18 detail": {"head_channels": 16, "detail": True},
    "pspnet/resnet26": {"head_channels": 16, "output_stride": 16},
    "pspnet/mobilenetv3_small_050": {"head_channels": 16, "output_stride": 16},
    "deeplabv3plus/resnet18": {"head_channels": 16, "output_stride": 16},
}
SLOW = {"deeplabv3plus/mobilenetv2_100", "edge-medium"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in (*SMALL, *FAMILIES)],
)
def test_no_batch_norm_and_no_branch(name):
    torch.manual_seed(0)
    network = small(name) if name in SMALL else build_network(name.split()[0], 2, 3, **FAMILIES[name])
    network = settled(network, torch.randn(2, 2, 64, 64))
    model = onnx.load(io.BytesIO(export_onnx(device_form(network, SPEC, fold=True), 20)))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] > 3
    assert kinds["BatchNormalization"] == kinds["ConvTranspose"] == 0
    assert not _branches(model.graph)


def _branches(graph):
    """Sums of two convolutions of one tensor with equal strides, which could be one convolution."""
    made = {node.output[0]: node for node in graph.node}
    found = []
    for node in graph.node:
        parts = [made.get(name) for name in node.input] if node.op_type == "Add" else []
        if len(parts) == 2 and all(part is not None and part.op_type == "Conv" for part in parts):
            same = parts[0].input[0] == parts[1].input[0]
            strides = [[list(a.ints) for a in part.attribute if a.name == "strides"] for part in parts]
            found += [node.name] if same and strides[0] == strides[1] else []
    return found


def test_the_unfolded_form_of_an_edge_network_has_branches():
    """The check above can fail."""
    network = settled(small("edge-nano"), torch.randn(2, 2, 64, 64))
    model = onnx.load(io.BytesIO(export_onnx(device_form(network, SPEC, fold=False), 20)))
    assert _branches(model.graph)
