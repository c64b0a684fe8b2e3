"""Thresholds and temperatures in a bundle: chosen on val, applied by the runtime."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy import cli
from deploy.analysis.collect import analyze, class_id, temperature_of
from deploy.analysis.decision import fit_decision
from deploy.build.steps import verify_build
from deploy.bundle.bundle_files import extend_bundle, read_manifest, set_decision, verify_files, write_bundle
from deploy.bundle.manifest import MANIFEST, RECEIPT
from deploy.errors import UserError
from deploy.evaluation.labeled_data import read_labeled, write_labeled
from deploy.evaluation.receipt import Budget, HopReceipt, Receipt
from deploy.evaluation.segmentation_metrics import Scores, SegmentationMetrics
from deploy.loading import load
from deploy.tasks.segmentation.model import SegmentationModel
from tests.deploy.labeled_bundle import contents, make_labeled_bundle
from tests.deploy.tiny import make_bundle, make_image, make_manifest
from tests.deploy.two_classes import IMAGES, make_two_class_bundle, scene


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_two_class_bundle(tmp_path / "student.bundle")


def scores_of(bundle: Path, split: str) -> Scores:
    model, metrics = load(bundle, "onnxruntime"), SegmentationMetrics(2)
    for _, image, label, valid in read_labeled(bundle.parent / "data" / split, 2):
        metrics.update(model(image).labels, label, valid)
    return metrics.scores()


def f1_of(bundle: Path, split: str) -> float:
    return scores_of(bundle, split).f1[1] or 0.0


class TestRuntime:
    def test_labels_are_what_the_probability_says(self, bundle):
        set_decision(bundle, 0.7, None)
        model = load(bundle, "onnxruntime")
        for rows in (32, 20):
            image = scene(20)[0][:rows]
            image[:4] = np.nan
            result = model(image)
            expected = np.where(result.valid, result.probabilities[1] >= np.float32(0.7), 255)
            np.testing.assert_array_equal(result.labels, expected)
            assert result.labels.dtype == np.uint8
            assert set(np.unique(result.labels)) == {0, 1, 255}

    def test_a_batch_is_its_images(self, bundle):
        set_decision(bundle, 0.6, 2.0)
        model = load(bundle, "onnxruntime")
        images = [scene(seed)[0] for seed in range(3)]
        labels = model(images).labels
        np.testing.assert_array_equal(labels, [model(image).labels for image in images])
        assert 0.05 < labels.mean() < 0.95

    def test_tiles_are_decided_alike(self, tmp_path):
        make_bundle(tmp_path / "tiled", "sar", "tile")
        set_decision(tmp_path / "tiled", 0.7, None)
        result = load(tmp_path / "tiled", "onnxruntime")(np.tile(scene(0)[0], (2, 2, 1)))
        assert 0.05 < result.labels.mean() < 0.95
        np.testing.assert_array_equal(result.labels, result.probabilities[1] >= np.float32(0.7))

    def test_temperature_changes_probabilities_and_no_label(self, bundle):
        plain = load(bundle, "onnxruntime")(make_image("sar"))
        set_decision(bundle, None, 4.0)
        cooled = load(bundle, "onnxruntime")(make_image("sar"))
        np.testing.assert_array_equal(plain.labels, cooled.labels)
        log_odds = [np.log(one.probabilities[1] / one.probabilities[0]) for one in (plain, cooled)]
        np.testing.assert_allclose(log_odds[0], 4 * log_odds[1], atol=1e-4)

    def test_a_half_is_the_larger_score(self, bundle):
        plain = load(bundle, "onnxruntime")(scene(0)[0]).labels
        set_decision(bundle, 0.5, None)
        assert np.mean(plain == load(bundle, "onnxruntime")(scene(0)[0]).labels) > 0.999


class TestManifest:
    def test_bundles_without_a_decision_do_not_mention_it(self, bundle):
        raw = msgspec.json.decode((bundle / MANIFEST).read_bytes())
        assert not {"threshold", "temperature"} & set(raw)

    def test_setting_and_taking_out_gives_the_same_bytes(self, bundle):
        before = contents(bundle)
        set_decision(bundle, 0.25, 1.5, {"threshold f1": 0.5})
        manifest = read_manifest(bundle)
        assert (manifest.threshold, manifest.temperature) == (0.25, 1.5)
        verify_files(bundle, manifest)
        assert contents(bundle).keys() == before.keys()
        set_decision(bundle, None, None, {"threshold f1": None})
        assert contents(bundle) == before

    def test_engines_stay(self, bundle):
        (bundle / "engines").mkdir()
        (bundle / "engines" / "some.engine").write_bytes(b"engine")
        set_decision(bundle, 0.25, None)
        assert (bundle / "engines" / "some.engine").read_bytes() == b"engine"

    @pytest.mark.parametrize(
        ("threshold", "temperature", "message"),
        [
            (1.5, None, "0..1"),
            (-0.1, None, "0..1"),
            (None, 0.0, "temperature: 0.0 is not in"),
            (None, float("inf"), "temperature: inf is not in"),
        ],
    )
    def test_nonsense_is_refused_and_nothing_written(self, bundle, threshold, temperature, message):
        before = contents(bundle)
        with pytest.raises(UserError, match=message):
            set_decision(bundle, threshold, temperature)
        assert contents(bundle) == before

    def test_three_classes_have_no_threshold(self, tmp_path):
        make_bundle(tmp_path / "b", "rgb")
        with pytest.raises(UserError, match="two classes"):
            set_decision(tmp_path / "b", 0.5, None)

    def test_adding_files_keeps_it(self, bundle):
        set_decision(bundle, 0.25, 1.5)
        manifest = extend_bundle(bundle, {"notes.txt": b"more"})
        assert (manifest.threshold, manifest.temperature) == (0.25, 1.5)

    @pytest.mark.parametrize(
        ("threshold", "hops"),
        [(None, ("torch", "onnx", "onnxruntime fp32")), (0.7, ("onnx", "onnxruntime fp32"))],
    )
    def test_verification_leaves_out_what_was_measured_without_it(self, bundle, threshold, hops):
        hop = HopReceipt("torch", 0.5, {"boundary F1": 0.5}, 1.0, 1.0, 9.0, 0, Budget(), True, ())
        receipt = Receipt("made up", "test", IMAGES, "mIoU", (hop,), True, ())
        extend_bundle(bundle, {RECEIPT: msgspec.json.encode(receipt)})
        set_decision(bundle, threshold, None)
        receipt = verify_build(bundle, bundle.parent / "data", "onnxruntime", "fp32", say=lambda _: None)
        assert tuple(hop.name for hop in receipt.hops) == hops
        assert receipt.hops[-1].agreement_previous == 1
        assert receipt.hops[-1].score == pytest.approx(scores_of(bundle, "test").miou)

    def test_info_shows_it(self, bundle, capsys):
        set_decision(bundle, 0.25, 1.5)
        assert cli.main(["info", str(bundle)]) == 0
        assert "land from a probability of 0.25" in capsys.readouterr().out


class TestFit:
    def test_chooses_the_best_on_val(self, bundle):
        decision = fit_decision(bundle, bundle.parent / "data")
        assert decision.threshold is not None
        assert decision.threshold > 0.55
        assert decision.f1_before == pytest.approx(f1_of(bundle, "val"))
        set_decision(bundle, decision.threshold, decision.temperature)
        assert f1_of(bundle, "val") == pytest.approx(decision.f1_after)
        assert f1_of(bundle, "val") > decision.f1_before + 0.05

    def test_after_a_temperature_too(self, bundle):
        decision = fit_decision(bundle, bundle.parent / "data", temperature=True)
        set_decision(bundle, decision.threshold, decision.temperature)
        assert f1_of(bundle, "val") == pytest.approx(decision.f1_after)
        assert decision.ece_after < decision.ece_before

    def test_once_more_changes_nothing(self, bundle):
        data = bundle.parent / "data"
        first = fit_decision(bundle, data, temperature=True)
        set_decision(bundle, first.threshold, first.temperature)
        again = fit_decision(bundle, data, temperature=True)
        assert (again.threshold, again.temperature) == (first.threshold, first.temperature)
        assert again.f1_before == pytest.approx(first.f1_after)

    def test_temperature_of_known_scores(self, bundle):
        """Labels drawn from the model's probabilities at temperature 3 are fitted best by 3."""
        model, random = load(bundle, "onnxruntime"), np.random.default_rng(0)
        set_decision(bundle, None, 3.0)
        hot, samples = load(bundle, "onnxruntime"), []
        for seed in range(20):
            image, _, valid = scene(seed)
            label = random.random((32, 48)) < hot(image).probabilities[1]
            samples.append(("", image, label.astype(np.uint8), valid))
        assert temperature_of(model, samples) == pytest.approx(3, rel=0.1)
        assert temperature_of(hot, samples) == pytest.approx(1, rel=0.1)


class TestCommand:
    def test_writes_and_prints(self, bundle, capsys):
        files = contents(bundle)
        assert cli.main(["threshold", str(bundle), "--temperature"]) == 0
        out = capsys.readouterr().out
        assert "F1 land %" in out
        assert "temperature: " in out
        manifest = read_manifest(bundle)
        assert manifest.threshold is not None
        assert manifest.temperature is not None
        assert manifest.metrics["threshold split"] == "val"
        assert {n: b for n, b in contents(bundle).items() if n != MANIFEST} == {
            n: b for n, b in files.items() if n != MANIFEST
        }
        assert cli.main(["verify", str(bundle)]) == 0
        capsys.readouterr()
        assert cli.main(["threshold", str(bundle), "--remove", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["threshold"] is None
        assert contents(bundle) == files

    def test_never_on_test(self, bundle):
        with pytest.raises(UserError, match="choose the threshold on val"):
            cli.main(["threshold", str(bundle), "--split", "test"])

    def test_missing_data_are_named(self, bundle, tmp_path):
        shutil.rmtree(bundle.parent / "data" / "val")
        with pytest.raises(UserError, match="data/val/images: no such folder"):
            cli.main(["threshold", str(bundle)])
        with pytest.raises(UserError, match="nowhere/val/images: no such folder"):
            cli.main(["threshold", str(bundle), "--data", str(tmp_path / "nowhere")])

    @pytest.mark.parametrize(("label", "message"), [(0, "no valid pixel is land"), (1, "is not land")])
    def test_one_class_alone_is_nothing_to_choose_by(self, bundle, label, message):
        before, folder = contents(bundle), bundle.parent / "data" / "val"
        shutil.rmtree(folder)
        image, labels, valid = scene(0)
        write_labeled(folder, [("a", image, np.full_like(labels, label), valid)])
        with pytest.raises(UserError, match=message):
            cli.main(["threshold", str(bundle)])
        assert contents(bundle) == before

    def test_three_classes_can_be_calibrated(self, tmp_path, capsys):
        bundle = make_labeled_bundle(tmp_path / "student.bundle")
        with pytest.raises(UserError, match="has 3 classes, a threshold is for two"):
            cli.main(["threshold", str(bundle)])
        assert cli.main(["threshold", str(bundle), "--temperature"]) == 0
        assert read_manifest(bundle).threshold is None
        assert read_manifest(bundle).temperature == 0.05  # the labels are the model's own
        out = capsys.readouterr().out
        assert "an end of the searched range" in out
        assert "F1" not in out

    def test_grasps_are_refused(self, bundle):
        manifest = msgspec.structs.replace(make_manifest("sar"), task="grasp")
        write_bundle(bundle, manifest, {})
        with pytest.raises(UserError, match="is for segmentation"):
            cli.main(["threshold", str(bundle)])


class TestFindings:
    def test_are_those_of_the_metrics(self, bundle):
        model = load(bundle, "onnxruntime")
        assert isinstance(model, SegmentationModel)
        findings = analyze(model, read_labeled(bundle.parent / "data" / "val", 2), positive=1)
        assert findings.dataset().f1[0, 1] == pytest.approx(f1_of(bundle, "val"))
        assert findings.valid_share == pytest.approx([29 / 32] * 4)
        assert findings.images().miou.shape == (4,)

    def test_pixels_without_data_are_missed_and_not_calibrated(self, bundle):
        image, label, valid = scene(0)
        image[:16] = np.nan
        findings = analyze(load(bundle, "onnxruntime"), [("a", image, label, valid)], positive=1)
        assert findings.confusions[0, :, 2].sum() == 13 * 48
        assert findings.reliability.count.sum() == 16 * 48
        assert findings.histogram.positive[0] >= (label[3:16] == 1).sum()

    def test_nothing_valid_is_an_error(self, bundle):
        image, label, valid = scene(0)
        with pytest.raises(UserError, match="no image has a valid pixel"):
            analyze(load(bundle, "onnxruntime"), [("a", image, label, valid & False)], positive=1)

    def test_classes_by_name(self, bundle):
        classes = read_manifest(bundle).classes
        assert [class_id(classes, name) for name in (None, "water", "land")] == [1, 0, 1]
        with pytest.raises(UserError, match="--class lake: no such class; there are water, land"):
            class_id(classes, "lake")
