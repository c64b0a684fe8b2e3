"""Fixtures for all tests of `distill`."""

import pytest
from accelerate import Accelerator


@pytest.fixture(scope="session")
def accelerator():
    return Accelerator(cpu=True)
