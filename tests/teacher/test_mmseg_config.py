"""The text of MMSegmentation's configurations: what it says is taken, what cannot be converted is refused."""

import pytest

from deploy.errors import UserError
from teacher.mmseg_config import Described, described, parse_config

VERSION_0 = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='ResNetV1c', depth=50, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1),
        norm_cfg=norm_cfg, style='pytorch', contract_dilation=True),
    decode_head=dict(type='PSPHead', pool_scales=(1, 2, 3, 6), align_corners=True),
    auxiliary_head=dict(type='FCNHead', align_corners=False))
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
"""
VERSION_1 = """
data_preprocessor = dict(mean=[100, 101.5, 102], std=[50, 51, 52], bgr_to_rgb=True)
model = {'backbone': dict(depth=50), 'decode_head': dict(type='PSPHead'), 'data_preprocessor': data_preprocessor}
"""


def test_version_0():
    meta = {"CLASSES": ("road", "sky"), "config": VERSION_0}
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    assert described({"meta": meta}, "a.pth") == Described(("road", "sky"), 8, True, True, mean, std)


def test_version_1_and_the_defaults_of_its_classes():
    meta = {"dataset_meta": {"classes": ["road", "sky"]}, "cfg": VERSION_1}
    mean, std = (100.0, 101.5, 102.0), (50.0, 51.0, 52.0)
    assert described({"meta": meta}, "a.pth") == Described(("road", "sky"), 32, False, False, mean, std)


@pytest.mark.parametrize(
    "content", [{}, {"meta": None}, {"meta": {"config": "a = ("}}, {"meta": {"config": "1 +"}}, []]
)
def test_a_file_may_say_nothing(content):
    assert described(content, "a.pth") == Described()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("style='pytorch'", "style='caffe'", "style 'caffe'"),
        ("style='pytorch'", "multi_grid=(1, 2, 4)", "multi_grid"),
        ("(1, 2, 3, 6)", "(1, 2, 3)", r"pool_scales \(1, 2, 3\)"),
        ("(1, 1, 2, 4)", "(1, 1, 1, 1)", r"strides \(1, 2, 1, 1\) and dilations \(1, 1, 1, 1\)"),
        ("(1, 1, 2, 4)", "5", r"dilations \(\)"),
        ("to_rgb=True", "to_rgb=False", "channels B G R"),
    ],
)
def test_another_network_is_refused(old, new, words):
    assert VERSION_0.count(old) == 1
    with pytest.raises(UserError, match=rf"a\.pth: .*{words}"):
        described({"meta": {"config": VERSION_0.replace(old, new)}}, "a.pth")


def test_text_is_parsed_and_never_run(tmp_path):
    text = f"a = open({str(tmp_path / 'x')!r}, 'w')\nb = [1, -2, {{[]: 1}}]"
    assert parse_config(text) == {}
    assert parse_config(f"a = open({str(tmp_path / 'x')!r}, 'w')\nb = 1") == {"a": None, "b": 1}
    assert not list(tmp_path.iterdir())
    assert parse_config("a = " + "(" * 100_000) == {}
