"""Families of students, and networks written with their options."""

import pytest
import torch

from deploy.errors import UserError
from student.candidates import FAMILIES, canonical, family_of, members_named, same_family
from student.edge import SIZES
from student.zoo import build_network, count_macs


@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_can_be_built(family):
    with torch.device("meta"):
        for arch in FAMILIES[family]:
            build_network(arch, 3, 4)


def test_the_edge_family_has_the_listed_sizes_and_grows():
    names = FAMILIES["edge"]
    assert {size.name for size in SIZES} <= set(names)
    with torch.device("meta"):
        macs = [count_macs(build_network(arch, 3, 4), 3, (64, 64)) for arch in names]
    assert macs == sorted(set(macs))


@pytest.mark.parametrize(
    ("arch", "others"),
    [
        ("edge-nano", FAMILIES["edge"]),
        ("edge/16", FAMILIES["edge"]),
        ("edge/17", (*FAMILIES["edge"], "edge/17")),
        ("pspnet/resnet50", FAMILIES["pspnet"]),
        ("pspnet/resnet34", (*FAMILIES["pspnet"], "pspnet/resnet34")),
        ("unet-wide", ("unet", "unet-weighted", "unet-wide")),
        ("grconvnet", ("grconvnet",)),
        ("unet-fusion", ("unet-fusion",)),
    ],
)
def test_the_family_of_a_network_has_the_network(arch, others):
    assert family_of(arch) == others


def test_networks_of_one_family():
    assert same_family("edge/17", "edge/18")
    assert same_family("edge/16", "edge-small")
    assert same_family("pspnet/resnet34", "pspnet/resnet18")
    assert not same_family("pspnet/resnet18", "edge/18")
    assert not same_family("unet-fusion", "unet")


def test_a_width_with_a_listed_name_is_called_by_it():
    assert canonical("edge/16") == "edge-nano"
    assert canonical("edge/17") == "edge/17"
    assert canonical("edge/wide") == "edge/wide"


def test_families_and_options_are_read():
    assert members_named("edge-small:detail=True") == [("edge-small", {"detail": True})]
    assert members_named("edge:detail=True") == [(arch, {"detail": True}) for arch in FAMILIES["edge"]]
    assert members_named("unet") == [("unet", {})]
    text = "edge/16:depths=(2, 2, 2, 2),stride=16"
    assert members_named(text) == [("edge-nano", {"depths": (2, 2, 2, 2), "stride": 16})]
    assert members_named("edge/16:depths=(1, 1, 1, 1)") == [("edge-nano", {})]  # the default


def test_options_at_their_defaults_are_left_out():
    assert members_named("pspnet/resnet18:detail=False,output_stride=16,head_channels=512") == [
        ("pspnet/resnet18", {"output_stride": 16})
    ]


@pytest.mark.parametrize(
    "options", ["detail", "detail=", "16", "detail=yes", "detail=None", "**x", "a=1)+f("]
)
def test_other_texts_are_refused(options):
    with pytest.raises(UserError, match=r"edge-nano:.*: write options as key=value, such as detail=True"):
        members_named(f"edge-nano:{options}")
