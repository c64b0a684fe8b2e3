"""CPU backends of known speed and labels, and bundles for them."""

import json
from pathlib import Path

import numpy as np

from deploy.backends.setting import Setting
from deploy.bundle.bundle_files import extend_bundle
from deploy.bundle.golden_file import read_golden
from deploy.bundle.manifest import GOLDEN, golden_metric
from deploy.errors import UserError
from tests.deploy.precisions import FakeEngine, make_precisions


class Machine:
    """A CPU whose backends take `ms`, by "backend precision" or by setting in words; `opened` lists what was opened."""

    def __init__(self) -> None:
        self.opened: list[Setting] = []
        self.ms: dict[str, float] = {"openvino fp32": 1.0}
        self.broken: set[str] = set()
        self.labels: dict[str, int] = {}
        self.measured: list[str] = []

    def open(self, folder: Path, setting: Setting, blob: bytes | None = None) -> FakeEngine:
        self.opened.append(setting)
        if setting.backend in self.broken:
            raise UserError(f"{setting.backend}: is broken")
        return FakeEngine(setting.name, self.labels.get(setting.name, 0))

    def time(
        self, engines: dict[Setting, FakeEngine], batch: np.ndarray, seconds: float
    ) -> dict[Setting, float]:
        self.measured += map(str, engines)
        return {one: self.ms.get(str(one), self.ms.get(one.name, 3.0)) for one in engines}

    @property
    def names(self) -> list[str]:
        """What was opened since it was asked last."""
        names = [str(setting) for setting in self.opened]
        self.opened.clear()
        return names


def remembered(bundle):
    return json.loads((bundle / "engines" / "auto.json").read_text())["choices"]


def proven_int8(folder):
    """A bundle whose INT8 model passed its gate."""
    make_precisions(folder, "int8")
    extend_bundle(folder, {}, {}, {golden_metric("int8"): 0.9})
    return folder


def everything_right(bundle):
    """Let every engine return golden labels that are the same everywhere."""
    golden = read_golden(bundle)
    np.savez(bundle / GOLDEN, **golden | {"labels": np.zeros((2, 32, 48), np.uint8)})
