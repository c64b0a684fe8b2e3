"""Keys and signed bundles."""

import pytest

from tests.deploy.signing.signed import make_key, make_signed

pytest.importorskip("cryptography", reason="cryptography is not installed (pip install 'edgedistill[sign]')")


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path, "maker")


@pytest.fixture
def other(tmp_path):
    return make_key(tmp_path, "other")


@pytest.fixture
def signed(tmp_path, key):
    return make_signed(tmp_path / "bundle", key)
