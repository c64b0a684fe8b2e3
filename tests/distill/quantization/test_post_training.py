"""The INT8 student of a run: what is written for a device, what is deployed, and when INT8 training is used."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.manifest import INT8, INT8_CPU
from deploy.errors import GateFailed, UserError
from deploy.evaluation.labeled_data import CalibrationImages, read_info, read_labeled
from deploy.evaluation.receipt import Budget, HopReceipt, Receipt
from deploy.files.images import write_png
from distill.config import DataConfig
from distill.export.to_onnx import input_spec
from distill.export_config import Int8Config
from distill.pipeline import pipeline
from distill.pipeline.pipeline import OnDevice, run, to_device_by_qat
from distill.quantization import post_training as int8
from distill.quantization.post_training import Outcome, write_device_data
from distill.run import parse
from distill.tasks.registry import open_splits
from tests.deploy.files.tiff_files import write_tiff
from tests.distill.tiny import RUN, prepared_data


@pytest.fixture(scope="module")
def splits():
    return open_splits(DataConfig("synthetic", size=(48, 48), synthetic_counts=(10, 5, 6)), seed=0)


class TestDeviceData:
    def test_holds_what_was_asked_for(self, splits, tmp_path):
        folder = write_device_data(
            prepared_data(splits), Int8Config(calibration_images=8, val_images=2, test_images=100), tmp_path
        )
        counts = [
            len(list((folder / split / "images").iterdir())) for split in ("calibration", "val", "test")
        ]
        assert counts == [8, 2, 6]
        assert read_info(folder).dataset == "synthetic"
        _, image, label, valid = next(read_labeled(folder / "test", 2))
        sample = splits.test[0]
        np.testing.assert_array_equal(image, sample.image.permute(1, 2, 0).numpy())
        np.testing.assert_array_equal(valid, sample.valid.numpy())
        np.testing.assert_array_equal(label[valid], sample.label.numpy()[valid])

    def test_is_replaced_whole(self, splits, tmp_path):
        write_device_data(prepared_data(splits), Int8Config(), tmp_path)
        folder = write_device_data(
            prepared_data(splits), Int8Config(calibration_images=8, val_images=1, test_images=1), tmp_path
        )
        assert len(list((folder / "test" / "images").iterdir())) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["data"]

    def test_what_is_interrupted_leaves_a_folder_that_the_next_call_replaces(
        self, splits, tmp_path, monkeypatch
    ):
        config = Int8Config(calibration_images=8, val_images=1, test_images=1)
        folder = write_device_data(prepared_data(splits), config, tmp_path)
        before = (folder / "data.json").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(int8, "write_info", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                write_device_data(prepared_data(splits), config, tmp_path)
        assert (folder / "data.json").read_bytes() == before
        write_device_data(prepared_data(splits), config, tmp_path)

    @pytest.mark.parametrize("shape", [(24, 24, 30), (1, 1, 2), (1, 16, 3), (4, 4, 4)])
    def test_images_of_any_shape_are_read_back_as_they_were(self, tmp_path, shape):
        pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        mask = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape[:2]) % 2
        for split in ("train", "val"):
            for index in range(2):
                write_tiff(tmp_path / "in" / split / "images" / f"{index}.tif", pixels + index)
                write_png(tmp_path / "in" / split / "masks" / f"{index}.png", mask)
        config = DataConfig("folder", root=tmp_path / "in", foreground=1, allow_absent_classes=True)
        data = prepared_data(open_splits(config, seed=0))
        folder = write_device_data(data, Int8Config(calibration_images=8, val_images=2), tmp_path)
        for index, (_, image, label, _) in enumerate(read_labeled(folder / "val", 2)):
            np.testing.assert_array_equal(image, pixels + index)
            np.testing.assert_array_equal(label, mask)

    def test_never_deletes_files_that_no_run_wrote(self, splits, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "precious.png").write_bytes(b"mine")
        with pytest.raises(UserError, match=r"data: was not written by a run, so it is not replaced"):
            write_device_data(prepared_data(splits), Int8Config(), tmp_path)
        assert (tmp_path / "data" / "precious.png").read_bytes() == b"mine"

    def test_scores_images_that_nothing_was_selected_by(self, splits, tmp_path):
        """If the data set has no test split of its own."""
        folder = write_device_data(
            prepared_data(replace(splits, test=splits.val)), Int8Config(val_images=2), tmp_path
        )
        images = [set(), set()]
        for found, split in zip(images, ("val", "test"), strict=True):
            found |= {image.tobytes() for _, image, _, _ in read_labeled(folder / split, 2)}
        assert [len(found) for found in images] == [2, 3]
        assert not images[0] & images[1]


def test_the_data_folder_of_a_run_must_not_hold_the_users_images(tmp_path):
    config = parse(
        ["folder", "--precision=fp32", f"--out={tmp_path}", f"--data.root={tmp_path / 'data' / 'mine'}"]
    )
    with pytest.raises(UserError, match="lies where the run writes"):
        run(config)


def outcome(*layers: str, failed: bool = False) -> Outcome:
    hop = HopReceipt("int8", 0.5, {"boundary F1": 0.5}, 1.0, 1.0, 9.0, 0, Budget(), True, ())
    receipt = Receipt("made up", "test", 4, "mIoU", (hop,), True, ())
    return Outcome(failure=GateFailed("over")) if failed else Outcome(receipt, None, layers)


class TestTrainingInInt8:
    def test_which_result_is_better(self):
        assert outcome().better_than(outcome("a"))
        assert outcome("a").better_than(outcome(failed=True))
        assert not outcome("a").better_than(outcome("b"))
        assert not outcome(failed=True).better_than(outcome("a"))
        assert [one.complete for one in (outcome(), outcome("a"), outcome(failed=True))] == [
            True,
            False,
            False,
        ]

    @pytest.mark.parametrize(("after", "kept"), [(outcome(), True), (outcome(failed=True), False)])
    def test_a_worse_result_does_not_replace_a_passing_one(self, monkeypatch, after, kept):
        before = OnDevice(outcome().receipt, outcome("layer"))
        exported = []

        def export(_, network, qat=None):
            exported.append(network)
            return OnDevice(before.fp32, after if qat else before.int8, qat is not None)

        class Qat:
            def plain(self):
                return "tuned"

        monkeypatch.setattr(pipeline, "to_device", export)
        monkeypatch.setattr(pipeline, "worth_keeping", lambda *_: True)
        result = to_device_by_qat(None, "student", Qat(), before)
        assert exported == (["tuned"] if kept else ["tuned", "student"])
        assert result.int8 is (after if kept else before.int8)
        assert result.qat == kept


@pytest.mark.slow
def test_a_run_trains_in_int8_where_quantizing_misses_and_resumes_it(tmp_path, monkeypatch):
    options = ["--no-baseline", "--int8.qat-steps=2", "--int8.val-images=1", "--int8.min-agreement=1"]
    config = parse([*RUN, *options, "--int8.max-drop=1", f"--out={tmp_path / 'run'}"])
    learned = []
    make = int8.make_quantized

    def strict(bundle, data, options, say, ranges):
        learned.append(ranges)
        if options.budget.min_agreement == 1:
            raise GateFailed("int8 is over the budget")
        return make(bundle, data, options, say, ranges)

    monkeypatch.setattr(int8, "make_quantized", strict)
    with pytest.raises(GateFailed, match="int8 is over the budget"):
        run(config)

    folder = tmp_path / "run" / "qat-2-1e-05"
    weights = (folder / "best.safetensors").read_bytes()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all("kd" in line for line in lines if "loss" in line)
    assert learned[0] is None
    assert len(learned[1]) > 20  # ranges that training found
    assert learned[2:] == [None]  # and the student again, as they did not help
    manifest = read_manifest(tmp_path / "run" / "student.bundle")
    verify_files(tmp_path / "run" / "student.bundle", manifest)
    assert not {INT8, INT8_CPU} & set(manifest.files)
    assert (tmp_path / "run" / "report.md").exists()

    torch.manual_seed(1)
    loose = replace(config, resume=True, int8=replace(config.int8, min_agreement=0.0))
    run(loose)  # quantizing alone meets this budget
    assert (folder / "best.safetensors").read_bytes() == weights
    assert INT8_CPU in read_manifest(tmp_path / "run" / "student.bundle").files


def test_calibration_images_are_the_training_splits_own(splits, tmp_path):
    folder = write_device_data(prepared_data(splits), Int8Config(calibration_images=8), tmp_path)
    spec = input_spec(prepared_data(splits), DataConfig("synthetic", size=(48, 48)))
    inputs = [pixels for pixels, _ in CalibrationImages(folder / "calibration" / "images", spec)]
    first = splits.train[0].image.numpy()
    seen = np.isfinite(first)
    assert len(inputs) == 8
    assert inputs[0].shape == (1, 2, 48, 48)
    if first.shape[1:] == (48, 48):
        np.testing.assert_array_equal(inputs[0][0][seen], first[seen])
