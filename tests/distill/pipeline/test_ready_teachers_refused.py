"""Ready-made teachers that do not fit are refused before anything is written."""

import json

import msgspec
import pytest
from onnx import helper

from deploy.bundle.manifest import ClassInfo
from deploy.errors import UserError
from distill.pipeline.prepare import prepare
from distill.run import parse
from tests.deploy.hostile import edit
from tests.deploy.tiny import make_bundle
from tests.distill.pipeline.ready_teachers import parsed, write_map
from tests.teacher.external.hf_folders import IMAGENET, saved
from tests.teacher.external.test_exported import write_onnx


class TestRefused:
    """Before anything is written."""

    def refused(self, tmp_path, words, *arguments):
        config = parsed(tmp_path, *arguments)
        with pytest.raises(UserError, match=words) as caught:
            prepare(config)
        assert "\n" not in str(caught.value)
        assert not (config.out / "config.json").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                ("--distill.loss=kl(t=2) + feature(layer4)",),
                "compares features, and --teacher.bundle gives outputs alone",
            ),
            (
                ("--data.labels=2", "--distill.unlabeled-loss=feature(layer4)"),
                r"--distill\.unlabeled-loss feature\(layer4\): compares features",
            ),
            (("--no-teacher",), "--teacher.bundle: does not go with --no-teacher"),
            (("--teacher.weights=a.safetensors",), "--teacher.bundle: does not go with --teacher.weights"),
            (
                ("--distill.teachers=a.safetensors",),
                "--distill.teachers: does not go with a teacher that is used as it is",
            ),
            (
                ("--data.normalize=image",),
                "--data.normalize image: does not go with a teacher that is used as it is",
            ),
            (("--data.scale=log",), "--data.scale log: does not go with a teacher that is used as it is"),
            (
                ("--data.scale=percentile",),
                "--data.scale percentile: does not go with a teacher that is used",
            ),
            (("--data.resize=tile",), "sees whole images resized to 32×48, and this run cuts them"),
            (
                ("--teacher.mean=1", "2", "--teacher.std=1", "2"),
                "normalizes its images itself; leave them out",
            ),
            (("--student.bundle=b",), "--student.bundle: is for teachers"),
            (("--student-train.steps=0",), "the student has neither steps nor weights"),
        ],
    )
    def test_what_does_not_go_with_a_bundle(self, tmp_path, bundle, arguments, words):
        self.refused(tmp_path, words, f"--teacher.bundle={bundle}", *arguments)

    def test_a_bundle_for_other_channels(self, tmp_path):
        make_bundle(tmp_path / "b", "rgb")
        words = r"takes images of 3 channels \(R, G, B\), the data has 2 \(VV, VH\)"
        self.refused(tmp_path, words, f"--teacher.bundle={tmp_path / 'b'}")

    def test_a_bundle_of_another_task(self, tmp_path, bundle):
        edit(bundle, "task", value="grasp")
        self.refused(tmp_path, "is a bundle for grasp", f"--teacher.bundle={bundle}")

    def test_a_bundle_for_data_of_another_task(self, tmp_path, bundle):
        config = parse(
            ["quick-grasp", "--precision=fp32", f"--teacher.bundle={bundle}", f"--out={tmp_path / 'run'}"]
        )
        with pytest.raises(UserError, match=r"--teacher\.bundle: is for classes, the data has grasps"):
            prepare(config)

    def test_a_bundle_of_other_classes(self, tmp_path, bundle):
        named = [msgspec.to_builtins(ClassInfo(name, (1, 2, 3))) for name in ("sea", "land")]
        edit(bundle, "classes", value=named)
        self.refused(
            tmp_path,
            r"has 2 classes \(sea, land\), .*--teacher.classes map.json",
            f"--teacher.bundle={bundle}",
        )

    def test_a_file_of_unknown_normalization(self, tmp_path, photos):
        path, _ = write_onnx(tmp_path / "net.onnx")
        self.refused(
            tmp_path, "does not say how its images are normalized", *photos, f"--teacher.bundle={path}"
        )

    def test_a_file_that_returns_probabilities(self, tmp_path, photos):
        path, _ = write_onnx(
            tmp_path / "net.onnx",
            nodes=[helper.make_node("Softmax", ["scores"], ["shares"], axis=1)],
            only="shares",
        )
        normalization = ("--teacher.mean", "0", "0", "0", "--teacher.std", "255", "255", "255")
        classes = write_map(tmp_path, {"car": "vehicle", "truck": "vehicle", "road": "road", "sky": None})
        arguments = (f"--teacher.bundle={path}", *normalization, classes)
        self.refused(tmp_path, "returns probabilities, whose sum is 1", *photos, *arguments)

    def test_a_map_for_a_teacher_that_is_trained(self, tmp_path):
        classes = write_map(tmp_path, {"a": "land"})
        self.refused(tmp_path, "--teacher.classes: is for a teacher that is used as it is", classes)

    @pytest.mark.parametrize("names", [("nir", "red", "green"), ("B", "G", "R")])
    def test_a_network_of_photos_on_other_channels(self, tmp_path, photos, names):
        saved(tmp_path / "net", "segformer", **IMAGENET)
        settings = json.loads((tmp_path / "data" / "classes.json").read_text())
        (tmp_path / "data" / "classes.json").write_text(json.dumps(settings | {"channels": names}))
        arguments = (f"--teacher.arch=hf/{tmp_path / 'net'}", "--teacher.pretrained")
        classes = write_map(tmp_path, {"car": "vehicle", "*": None})
        words = rf"takes images of 3 channels \(R, G, B\), the data has 3 \({', '.join(names)}\)"
        self.refused(tmp_path, words, *photos, *arguments, classes)

    def test_a_backbone_has_no_classes(self, tmp_path, photos):
        saved(tmp_path / "net", "dinov2")
        arguments = (
            f"--teacher.arch=hf/{tmp_path / 'net'}",
            "--teacher.pretrained",
            "--teacher-train.steps=0",
        )
        self.refused(tmp_path, "is a backbone", *photos, *arguments)
