"""One cluster of two processes for all tests that do not kill anything, and a bundle for each kind of image."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.tiny import make_bundle

NO_DASHBOARD = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
"""Options of `distributed.LocalCluster`: another one may have the usual port."""


@pytest.fixture(scope="module")  # its processes must not live on beside other tests
def scheduler() -> Iterator[str]:
    """Address of a scheduler with two workers, each a process of one thread."""
    import distributed

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **NO_DASHBOARD) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles `rgb` and `sar`, both for tiles."""
    folder = tmp_path_factory.mktemp("bundles")
    make_bundle(folder / "rgb", resize="tile")
    make_bundle(folder / "sar", "sar", resize="tile")
    return folder
