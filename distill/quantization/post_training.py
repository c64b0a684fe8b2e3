"""Post-training quantization of the student, and the images that it needs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.build.steps import make_quantized
from deploy.bundle.manifest import INT8_CPU
from deploy.errors import GateFailed, UserError
from deploy.evaluation.labeled_data import DATA, INFO, DataInfo, write_image, write_info
from deploy.evaluation.receipt import Budget, Receipt, Sample
from deploy.files.staging import staged
from deploy.heartbeat import counted
from deploy.lint.coverage import little_int8
from deploy.quantize.options import Int8Options
from distill.data.splits import Reader
from distill.export.evaluate import spread
from distill.export_config import Int8Config
from distill.tasks.task import PreparedData
from distill.training.log import say


def write_device_data(data: PreparedData, config: Int8Config, out: Path) -> Path:
    """Write the images for calibration, validation and test on a device (see `deploy.evaluation.labeled_data`).

    The images are evenly spread over their split. If a data set is tested on its validation split, `test/` has none of
    the images in `val/`. The folder atomically replaces that of an earlier run.

    Args:
        data: the data set.
        config: how many images.
        out: folder of the run, with its bundles.

    Returns:
        The folder of the images.

    Raises:
        UserError: a folder of the same name exists that was not written by a run.
    """
    folder, splits, task = out / DATA, data.splits, data.task.device
    if folder.exists() and not (folder / INFO).is_file():
        raise UserError(f"{folder}: was not written by a run, so it is not replaced; choose another --out")
    with staged(folder) as staging:
        chosen = spread(range(len(splits.train)), config.calibration_images)
        for index, (name, image, _, _) in enumerate(_samples(splits.train, data, chosen)):
            write_image(staging / "calibration" / "images" / f"{index:05d}-{Path(name).name}", image)
        val = spread(range(len(splits.val)), config.val_images)
        task.write(staging / "val", _samples(splits.val, data, val))
        unseen = set(range(len(splits.test))) - set(val if splits.test is splits.val else ())
        test = spread(sorted(unseen) or val, config.test_images)
        written = task.write(staging / "test", _samples(splits.test, data, test))
        write_info(staging, DataInfo(splits.name, splits.tested_on, written))
    return folder


@dataclass(frozen=True)
class Outcome:
    """Result of a quantization: a receipt, or the reason for failure."""

    receipt: Receipt | None = None
    failure: GateFailed | None = None
    float_layers: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the model meets the budget with all layers in INT8."""
        return self.failure is None and not self.float_layers

    def better_than(self, other: "Outcome") -> bool:
        """Whether this one meets the budget and the other does not, or needs fewer layers in float."""
        if self.failure or other.failure:
            return self.failure is None
        return len(self.float_layers) < len(other.float_layers)


def quantize_bundle(
    bundle: Path, data: Path, config: Int8Config, learned: Mapping[str, float] | None = None
) -> Outcome:
    """Add the INT8 model to a bundle if it meets the budget (see `deploy.build.steps.make_quantized`).

    Args:
        bundle: folder of the bundle.
        data: folder of the images (see `write_device_data`).
        config: the budget.
        learned: ranges of activations learned by quantization-aware training, by tensor name.
    """
    options = Int8Options(budget=Budget(config.max_drop, config.min_agreement))
    try:
        receipt, report = make_quantized(bundle, data, options, say, learned)
    except GateFailed as failure:
        return Outcome(failure=failure)
    if warning := little_int8((bundle / INT8_CPU).read_bytes(), "onnxruntime"):
        say(f"int8: {warning}")
    return Outcome(receipt, None, tuple(report.float_layers))


def _samples(reader: Reader, data: PreparedData, positions: Iterable[int]) -> Iterator[Sample]:
    return (data.task.arrays(reader[position], data.splits.optical) for position in counted(positions))
