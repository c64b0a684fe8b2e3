"""The student in INT8: post-training quantization, and training with simulated INT8 where that is not enough."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.build import Int8Options, make_int8
from deploy.errors import GateFailed
from deploy.labelled import DATA, DataInfo, write_image, write_info, write_labelled
from deploy.verify import Budget, Receipt, Sample
from distill.config import Int8Config
from distill.data.splits import Reader, Splits
from distill.evaluate import as_arrays
from distill.log import say


def write_device_data(splits: Splits, config: Int8Config, out: Path) -> Path:
    """Leave images beside the bundles to calibrate with, to choose by and to measure on (see `deploy.labelled`).

    Each split gives images that are evenly spread over it. Returns the folder.
    """
    folder = out / DATA
    shutil.rmtree(folder, ignore_errors=True)
    for index, (name, image, _, _) in enumerate(_spread(splits.train, splits, config.calibration_images)):
        write_image(folder / "calibration" / "images" / f"{index:05d}-{Path(name).name}", image)
    write_labelled(folder / "val", _spread(splits.val, splits, config.val_images))
    written = write_labelled(folder / "test", _spread(splits.test, splits, config.test_images))
    write_info(folder, DataInfo(splits.name, splits.tested_on, written))
    return folder


@dataclass(frozen=True)
class Outcome:
    """What became of the attempt: a receipt, or why there is none."""

    receipt: Receipt | None = None
    failure: GateFailed | None = None
    float_layers: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Within the budget, and no layer had to stay in float for it."""
        return self.failure is None and not self.float_layers


def quantize_bundle(
    bundle: Path, data: Path, config: Int8Config, learned: Mapping[str, float] | None = None
) -> Outcome:
    """Add the INT8 model to a bundle if it keeps within the budget (see `deploy.build.make_int8`)."""
    options = Int8Options(budget=Budget(config.max_miou_drop, config.min_agreement))
    try:
        receipt, report = make_int8(bundle, data, options, say, learned)
    except GateFailed as failure:
        return Outcome(failure=failure)
    return Outcome(receipt, None, tuple(report.float_layers))


def _spread(reader: Reader, splits: Splits, limit: int) -> Iterator[Sample]:
    count = min(limit, len(reader))
    for index in range(count):
        yield as_arrays(reader[index * len(reader) // count], splits.optical)
