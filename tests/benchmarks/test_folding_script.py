"""The forms that benchmarks/folding.py compares compute the same."""

import pytest
import torch

from benchmarks import folding
from benchmarks.folding_networks import Chain, split
from tests.student.networks import settled, small


@pytest.mark.parametrize("arch", ["deeplabv3plus/mobilenetv2_100", "unet", "unet-fusion"])
def test_split_convolutions_compute_the_same(arch):
    images = torch.randn(2, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    network = settled(small(arch), images).double()
    with torch.no_grad():
        expected = network(images.double()).logits
        found = split(network)(images.double()).logits
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_the_table_says_where_int8_is_slower(monkeypatch, capsys):
    monkeypatch.setattr(folding, "FOLDED", ("edge/2",))
    monkeypatch.setattr(folding, "SPLIT", ())
    monkeypatch.setattr(folding, "timed", lambda calls, _: {key: 1.0 + (key[-1] == "int8") for key in calls})
    folding.forms(1, 32, 2)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("INT8 is slower than fp32 here: edge/2 before on onnxruntime 0.50×")


def test_a_chain_has_layers_of_equal_size():
    with torch.no_grad():
        logits = Chain(8, 3, 4, 2)(torch.zeros(1, 3, 32, 32)).logits
    assert logits.shape == (1, 2, 8, 8)
