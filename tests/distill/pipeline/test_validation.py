"""Options that would fail after training, or teach nothing, are found before the first step."""

from dataclasses import replace
from typing import Any

import pytest

from deploy.errors import UserError
from distill.data.splits import Splits
from distill.pipeline.validation import check_class_pixels, check_config, fit_crop
from distill.run import preset
from distill.tasks.registry import open_splits
from tests.distill.data.datasets.dataset_files import ids, laid_out, open_at
from tests.distill.tiny import check_against_data

QUICK = preset("quick")
LATE: dict[str, list[Any]] = {
    "export.opset": [17, 26],
    "export.max_drop": [-1.0, float("nan")],
    "export.min_agreement": [2.0, float("nan")],
    "int8.qat_lr": [float("inf"), float("nan")],
    "student_train.lr": [float("inf"), float("nan"), 0.0],
    "student_train.momentum": [1.0, float("nan")],
    "student_train.head_lr_factor": [-1.0, float("nan")],
    "student_train.weight_decay": [-1.0, float("inf")],
    "student_train.clip": [-1.0, float("nan")],
    "student.dropout": [1.0, -0.5, float("nan")],
    "student.head_channels": [0],
    "augment.scale": [(1.0, float("inf")), (float("nan"), 1.0)],
    "loss.aux": [-1.0, float("nan")],
    "distill.weight": [float("inf"), float("nan")],
}


@pytest.mark.parametrize(("field", "value"), [(f, value) for f, values in LATE.items() for value in values])
def test_values_beyond_a_field_are_refused(field, value):
    with pytest.raises(UserError, match=field.rpartition(".")[2].replace("_", ".")):
        preset("quick", **{field: value})


def test_newer_opsets_are_for_fp32():
    config = preset("quick", **{"export.opset": 21})
    with pytest.raises(UserError, match=r"--export\.opset 21: INT8 needs opset 20 or older"):
        check_config(config, 1)
    check_config(replace(config, int8=replace(config.int8, enabled=False)), 1)


def test_a_crop_larger_than_the_image_is_adjusted_with_a_word():
    config, lines = fit_crop(preset("quick", **{"data.size": (64, 48), "augment.crop": (288, 32)}))
    assert config.augment.crop == (64, 32)
    assert lines == [
        "crops are 64×32: --augment.crop 288 32 is larger than --data.size 64 48, to which images are resized"
    ]


@pytest.mark.parametrize("changes", [{}, {"data.size": (8, 8), "data.resize": "tile"}])
def test_other_crops_stay(changes):
    config = preset("quick", **changes)
    assert fit_crop(config) == (config, [])


def test_a_class_without_a_valid_pixel_stops_files_and_is_said_of_scenes(tmp_path):
    scenes = open_splits(preset("smoke").data)
    config = preset("smoke").data
    stats = _stats((5, 0))
    assert check_class_pixels(config, scenes, stats) == [
        f"warning: no training pixel is labeled {scenes.classes[1].name}"
    ]
    laid_out(tmp_path, ids(0, 1))
    files = open_at("folder", tmp_path)
    with pytest.raises(UserError, match=r"labeled class_1; .*--data\.allow-absent-classes"):
        check_class_pixels(config, files, stats)
    assert check_class_pixels(replace(config, allow_absent_classes=True), files, stats)
    assert check_class_pixels(config, files, _stats((5, 1))) == []


def test_more_classes_than_a_bundle_holds():
    scenes: Splits = open_splits(QUICK.data)
    many = replace(scenes, classes=scenes.classes[:1] * 256)
    with pytest.raises(UserError, match="the data has 256 classes; a bundle has at most 255"):
        check_against_data(QUICK, many)


def _stats(pixels: tuple[int, ...]) -> Any:
    from distill.data.stats import Stats

    return Stats(mean=(0.0,), std=(1.0,), class_pixels=pixels, images=1)
