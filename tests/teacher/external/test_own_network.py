"""A user's own network, named `package.module:function`."""

import sys

import pytest
import torch
from torch import nn

from deploy.errors import UserError
from student.zoo import build_network, channels_of
from teacher.external.own_network import OwnNetwork, check_own, is_own
from tests.teacher.external.own_module import MODULE


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a package's module in the current folder."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(MODULE)
    (package / "script.py").write_text("import sys\nsys.exit(0)\n")
    (package / "broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield "own_package.nets"
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]


def checked(arch, sizes):
    network = build_network(arch, 3, 5)
    for training in (False, True):
        check_own(arch, network, 3, 5, sizes, training=training)
    return network


@pytest.mark.parametrize("name", ["Net", "Mapping", "Ours"])
def test_logits_a_mapping_or_our_output_will_do(module, name):
    network = build_network(f"{module}:{name}", 2, 5)
    assert channels_of(network) == 2
    assert isinstance(network, OwnNetwork) == (name != "Ours")
    output = network.train()(torch.randn(2, 2, 40, 64))
    assert output.logits.shape == (2, 5, 10, 16)
    assert (output.aux is not None) == (name == "Mapping")
    assert set(output.features) == {"Net": set(), "Mapping": {"body"}, "Ours": {"layer4"}}[name]
    assert network.eval()(torch.randn(1, 2, 40, 64)).aux is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nets:Flat",
            r"returns a tensor 1×5×256 of float32 for images 1×3×64×64; it must return floating logits 1×5×h×w",
        ),
        ("nets:Labels", r"returns a tensor 1×1×16×16 of int64 for images"),
        ("nets:Twice", r"returns a tensor 1×10×16×16 of float32"),
        ("nets:Named", r"returns a mapping of masks; its logits must be called logits"),
        ("nets:Nothing", r"returns a NoneType; it must return logits"),
        ("nets:Broken", r"fails on images 1×3×64×64: AttributeError: .*lost.* \(module\.py, line \d+\)"),
        ("nets:Probabilities", r"returns probabilities, whose sum is 1; give it without its softmax"),
        ("nets:Halves", r"fails on images 1×3×40×40: RuntimeError: .*\(.*\.py, line \d+\)"),
        ("nets:OnlySmall", r"fails on images 1×3×64×64: RuntimeError: .*\(nets\.py, line \d+\)"),
        ("nets:TupleInTraining", r"returns in training mode a tuple; it must return logits"),
        (
            "nets:OneAux",
            r"returns in training mode aux of a tensor 2×1×16×16 of float32 for images 2×3×64×64",
        ),
        (
            "nets:FlatFeatures",
            r"returns feature body of a tensor 1×12288 .* must return floating feature maps 1×C×",
        ),
        ("nets:ListOfFeatures", r"returns features in a list; they must be a mapping of maps by name"),
        ("nets:number", r"returns a int; it must return a torch\.nn\.Module"),
        ("nets:fails", r"cannot be built: RuntimeError: no weights here \(nets\.py, line \d+\)"),
        ("nets:Nett", r"own_package\.nets has no function Nett \(did you mean Net\?\)"),
        ("nets:VALUE", r"own_package\.nets has no function VALUE"),
        (
            "none:Net",
            r"cannot import own_package\.none: ModuleNotFoundError: No module named 'own_package\.none'",
        ),
        (
            "broken:Net",
            r"cannot import own_package\.broken: .*a_package_that_is_not_there.* \(broken\.py, line 1\)",
        ),
        ("script:Net", r"cannot import own_package\.script: SystemExit: 0 \(script\.py, line 2\)"),
    ],
)
def test_mistakes_are_one_line_that_names_the_place(module, name, words):
    with pytest.raises(UserError, match=rf"own_package\.{name}: {words}") as caught:
        checked(f"own_package.{name}", [(64, 64), (40, 40)])
    assert "\n" not in str(caught.value)


def test_a_network_of_one_size_is_tried_at_that_size_and_stays_as_it_is(module):
    network = checked(f"{module}:OnlySmall", [(40, 40)])
    assert network.training
    assert network(torch.zeros(1, 3, 40, 40)).logits.shape == (1, 5, 10, 10)


def test_options_of_other_networks_are_refused(module):
    with pytest.raises(UserError, match="has no option head_channels; give the default, head_channels 512"):
        build_network(f"{module}:Net", 3, 5, head_channels=64)


@pytest.mark.parametrize(
    ("arch", "own"),
    [
        ("a.b:c", True),
        ("a:b", True),
        ("pspnet/resnet18", False),
        ("hf/a:b", False),
        ("a:b:c", False),
        ("a:", False),
    ],
)
def test_names_of_own_networks(arch, own):
    assert is_own(arch) == own


def test_installed_packages_come_before_the_current_folder(module, tmp_path):
    (tmp_path / "torch.py").write_text("raise RuntimeError('hidden')\n")
    assert isinstance(build_network(f"{module}:Net", 3, 5), nn.Module)
    assert sys.path[-1] == str(tmp_path)
