"""A run with images that have no labels: who learns from them, what stays of them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.bundle.bundle_files import read_manifest
from deploy.errors import UserError
from deploy.files.images import write_png
from distill.data.fingerprint import digest_of
from distill.pipeline.pipeline import run
from distill.pipeline.prepare import prepare
from distill.pipeline.stages import training_stage
from distill.pipeline.time_budget import summary_lines
from distill.run import parse
from distill.tasks.registry import open_splits
from distill.training.checkpoint import load_checkpoint, read_meta
from tests.distill.tiny import RUN, check_against_data


def photo(path: Path, seed: int) -> None:
    write_png(path, np.random.default_rng(seed).integers(0, 255, (48, 48, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for number in range(4):
            photo(root / "data" / split / "images" / f"{number}.png", number)
            label = (np.indices((48, 48)).sum(0) // 16 % 2).astype(np.uint8)
            write_png(root / "data" / split / "masks" / f"{number}.png", label)
    for number in range(5):
        photo(root / "secret-photos" / f"p{number}.png", 10 + number)
    return root


def arguments(folders: Path, out: Path, *more: str) -> list[str]:
    options = ["--data.name=folder", f"--data.root={folders / 'data'}", f"--out={out}", "--no-baseline"]
    options += [f"--data.unlabeled={folders / 'secret-photos'}", "--int8.no-enabled"]
    return [*RUN, *options, "--teacher.no-detail", "--student.no-detail", *more]


LOSSES = (
    "--distill.loss=kl(t=2) + 0.1*feature(layer4)",
    "--distill.unlabeled-loss=0.5*jaccard + 0.1*feature(layer3) + ifvd(layer4)",
    "--distill.unlabeled-aux=kl(t=1)",
)


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    """A run whose losses need labels and adapters, others where there are no labels, from stored views."""
    out = tmp_path_factory.mktemp("run") / "run"
    config = parse(arguments(folders, out, *LOSSES, "--distill.views=2", "--distill.class-weights=log"))
    run(config)
    return config


def test_the_student_alone_learns_from_them(folders, tmp_path):
    context = prepare(parse(arguments(folders, tmp_path / "run")))
    teacher = training_stage(context, "teacher", context.config.teacher)
    student = training_stage(context, "student", context.config.student, distills=True)
    assert (len(teacher.view), teacher.order) == (4, None)
    assert len(student.view) == 9
    keys = student.order.keys(2, 0, 0)
    assert [index >= 4 for _, index in keys] == [False, True]
    lines = list(summary_lines(context, None))
    assert "4 training, 4 validation, 4 test images, 5 without labels;" in lines[0]


def test_teacher_outputs_are_stored_for_them(finished):
    cache = json.loads((finished.out / "teacher-cache" / "cache.json").read_text())
    assert cache["layout"]["rows"] == 2 * 9


def test_the_log_has_both_losses(finished):
    lines = [
        json.loads(line) for line in (finished.out / "student" / "metrics.jsonl").read_text().splitlines()
    ]
    assert all(line["kd"] > 0 and line["task"] > 0 for line in lines if "loss" in line)


def test_nothing_of_teacher_adapters_or_paths_is_in_the_results(finished):
    for stage in ("student", "teacher"):
        tensors, _ = load_checkpoint(finished.out / stage / "best.safetensors")
        assert {name.split(".")[0] for name in tensors} == {"model"}
        assert {name.split(".")[1] for name in tensors} <= {
            *("backbone", "pyramid", "head", "classifier", "aux_head"),
        }
    meta = read_meta(finished.out / "student" / "best.safetensors")
    assert "unlabeled" not in json.dumps(meta)
    results = [finished.out / "student.bundle", finished.out / "teacher.bundle", finished.out / "student"]
    files = [path for folder in results for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert b"secret-photos" not in path.read_bytes(), path


def test_the_bundle_names_their_fingerprint_alone(finished):
    provenance = read_manifest(finished.out / "student.bundle").provenance
    expected = digest_of(open_splits(finished.data).unlabeled)
    assert provenance["data unlabeled"] == expected
    assert "data unlabeled" not in read_manifest(finished.out / "teacher.bundle").provenance


def test_resuming_with_other_images_is_refused(folders, finished):
    again = arguments(folders, finished.out, "--resume")
    again += [*LOSSES, "--distill.views=2", "--distill.class-weights=log"]
    added = folders / "secret-photos" / "p9.png"
    photo(added, 1)
    try:
        with pytest.raises(UserError, match=r"1 of unlabeled added \(unlabeled/p9\.png\)"):
            run(parse(again))
    finally:
        added.unlink()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--no-teacher", "--no-teacher has none; leave one of the two out"),
        ("--distill.weight=0", r"--distill\.weight 0 has none"),
        ("--data.unlabeled-share=0.1", r"unlabeled-share 0\.1: is 0 of the 2 images of a batch"),
        ("--data.unlabeled-share=1", r"unlabeled-share 1\.0: must be above 0 and below 1"),
        ("--distill.unlabeled-loss=jacard", r"jacard"),
        (
            "--distill.unlabeled-loss=feature(layer9)",
            r"--distill\.unlabeled-loss: the student has no feature 'layer9'",
        ),
        (
            "--distill.unlabeled-aux=at(layer4)",
            r"--distill\.unlabeled-aux at\(layer4\): at\(layer4\) compares features",
        ),
        ("--distill.min-confidence=1", r"min-confidence 1\.0: must be at least 0 and below 1"),
        ("--data.unlabeled=/nowhere", "/nowhere: no such folder"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(folders, tmp_path, more, words):
    with pytest.raises(UserError, match=words):
        run(parse(arguments(folders, tmp_path / "run", more)))
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_is_refused_before_any_training(folders, tmp_path):
    damaged = folders / "secret-photos" / "damaged.png"
    damaged.write_bytes((folders / "secret-photos" / "p0.png").read_bytes()[:80])
    try:
        with pytest.raises(UserError, match=r"secret-photos/damaged\.png: "):
            run(parse(arguments(folders, tmp_path / "run")))
    finally:
        damaged.unlink()
    assert not (tmp_path / "run" / "teacher").exists()


@pytest.mark.parametrize("preset", ["quick-grasp", "quick-depth"])
def test_other_tasks_refuse_them(preset, tmp_path):
    for option in ("--data.labels=5", f"--data.unlabeled={tmp_path}"):
        config = parse([preset, option])
        with pytest.raises(UserError, match=r"--data\.unlabeled and --data\.labels: are for segmentation"):
            check_against_data(config, open_splits(config.data))


def test_both_spellings_of_the_option(folders, tmp_path):
    british = "--data.unlabelled"  # codespell:ignore unlabelled
    typed = [each.replace("--data.unlabeled", british) for each in arguments(folders, tmp_path)]
    assert parse(typed).data.unlabeled == folders / "secret-photos"
