"""A small scene for the tests of distillation losses."""

import pytest

from tests.distill.losses.dense import make_scene


@pytest.fixture
def scene():
    return make_scene()
