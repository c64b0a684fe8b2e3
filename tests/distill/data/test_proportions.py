"""Images that are resized to other proportions are warned of, with a size that keeps them."""

from types import SimpleNamespace

import pytest
import torch

from distill.config import DataConfig
from distill.data.proportions import MOST, change, narrowing, proportion_warnings, proportional, spread


class Shapes:
    """Samples of these shapes."""

    def __init__(self, *shapes):
        self.shapes, self.ids = shapes, [str(index) for index in range(len(shapes))]

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        return SimpleNamespace(image=torch.zeros(3, *self.shapes[index]))


def test_a_wide_image_in_a_square():
    (line,) = proportion_warnings(Shapes((603, 1272)), DataConfig("folder", size=(256, 256)))
    assert line == (
        "warning: --data.size 256 256 distorts images of 603×1272: all in them gets 2.1 times narrower;"
        " --data.size 176 368 keeps their proportions, --data.resize tile also their scale"
    )


@pytest.mark.parametrize(
    ("shapes", "resize", "lines"),
    [
        ([(360, 480)] * 9, "stretch", 1),
        ([(250, 260)] * 9, "stretch", 0),
        ([(256, 256)] * 8 + [(256, 900)], "stretch", 0),  # not among those that are looked at
        ([(256, 256), (256, 900)], "stretch", 1),
        ([(360, 480)], "tile", 0),
        ([], "stretch", 0),
    ],
)
def test_when_it_warns(shapes, resize, lines):
    config = DataConfig("folder", size=(256, 256), resize=resize)
    assert len(list(proportion_warnings(Shapes(*shapes), config))) == lines


@pytest.mark.parametrize("shape", [(603, 1272), (1272, 603), (360, 480), (1000, 1000), (90, 4000), (40, 50)])
def test_a_size_that_keeps_them(shape):
    height, width = proportional(shape, (256, 256))
    if height * width < shape[0] * shape[1]:
        assert height % 16 == width % 16 == 0
    else:
        assert (height, width) == shape
    if min(shape) > 200:
        assert 1 / MOST < narrowing(shape, (height, width)) < MOST
        assert 0.6 < height * width / 256**2 < 1.6


def test_words_and_positions():
    assert change(2.11) == "2.1 times narrower"
    assert change(0.5) == "2.0 times flatter"
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(0, 5) == []
