"""Weights that a run starts from decide its normalization, or are refused in one line."""

from dataclasses import replace

import pytest

from deploy.errors import UserError
from distill.config import DataConfig, ModelConfig
from distill.data.stats import Stats
from distill.pipeline.initial_weights import check_initial_weights, check_whole, with_normalization
from distill.pipeline.prepare import check_teachers
from distill.presets import smoke
from distill.tasks.registry import open_splits
from distill.training.checkpoint import pack, save_checkpoint
from distill.training.checkpoint_metadata import checkpoint_metadata
from student.zoo import build_network
from tests.distill.tiny import prepared_data

MODEL = ModelConfig("pspnet/mobilenetv3_small_050", output_stride=16, head_channels=16)
THEIRS = Stats((-12.0, -19.0), (5.0, 4.0), (10, 20), 8)
OURS = Stats((-11.0, -17.0), (6.0, 3.0), (10, 20), 8)


@pytest.fixture(scope="module")
def splits():
    return open_splits(DataConfig("synthetic", size=(32, 32), synthetic_counts=(2, 1, 1)))


@pytest.fixture
def run(tmp_path, splits):
    """A function of changes to the file's metadata that returns a run with its weights as teacher's, untrained."""

    def make(model=None, **changes):
        network = build_network(MODEL.arch, 2, 2, output_stride=16, head_channels=16)
        meta = {"step": 1, **checkpoint_metadata(MODEL, True, prepared_data(splits, THEIRS)), **changes}
        meta["model"] = {name: v for name, v in (meta["model"] | (model or {})).items() if v is not None}
        save_checkpoint(tmp_path / "best.safetensors", pack("model", network.state_dict()), meta)
        teacher = replace(MODEL, weights=tmp_path / "best.safetensors")
        config = smoke()
        return replace(config, teacher=teacher, teacher_train=replace(config.teacher_train, steps=0))

    return make


def test_the_teachers_normalization_is_the_runs(run, splits):
    config = run()
    check_initial_weights(config, splits)
    stats, lines = with_normalization(config, splits, OURS)
    assert stats == replace(OURS, mean=THEIRS.mean, std=THEIRS.std, weights=str(config.teacher.weights))
    split = "the training split has mean -11 -17, std 6 3"
    assert lines == [f"normalization: mean -12 -19, std 5 4, of {config.teacher.weights}; {split}"]
    check_teachers(config, prepared_data(splits, stats))
    assert with_normalization(config, splits, THEIRS) == (THEIRS, [])
    assert with_normalization(smoke(), splits, OURS) == (OURS, [])


def test_without_a_teacher_the_students_weights_decide(run, splits):
    config = run()
    alone = replace(config, no_teacher=True, student=config.teacher, teacher=smoke().teacher)
    assert with_normalization(alone, splits, OURS)[0].mean == THEIRS.mean
    assert with_normalization(replace(config, no_teacher=True), splits, OURS) == (OURS, [])


def backbone_file(path, **changes):
    """A file as `edgedistill pretrain` writes it."""
    network = build_network(MODEL.arch, 2, 2, output_stride=16, head_channels=16)
    meta = {"pretrained": {}, "channels": ["VV", "VH"], "mean": THEIRS.mean, "std": THEIRS.std} | changes
    save_checkpoint(path, pack("model", network.get_submodule("backbone").state_dict()), meta)
    return replace(smoke(), student=replace(MODEL, weights=path))


def test_a_pretrained_backbone_decides_beside_a_new_teacher(splits, tmp_path):
    config = backbone_file(path := tmp_path / "backbone.safetensors")
    check_initial_weights(config, splits)
    stats, [line] = with_normalization(config, splits, OURS)
    assert stats == replace(OURS, mean=THEIRS.mean, std=THEIRS.std, weights=str(path))
    assert line.startswith(f"normalization: mean -12 -19, std 5 4, of {path}")
    own = replace(OURS, normalize="image")
    stats, [line] = with_normalization(config, splits, own)
    assert stats == own
    assert "was trained with another (mean -12 -19, std 5 4), and goes on with this run's" in line


@pytest.mark.parametrize("scale", [{"log_floor": (1e-8, 1e-9)}, {"clip": ((-30.0, 0.0), (-40.0, -5.0))}])
def test_a_backbone_of_another_scale_goes_on_with_the_runs(splits, tmp_path, scale):
    config = backbone_file(tmp_path / "backbone.safetensors")
    ours = replace(OURS, **scale)
    stats, [line] = with_normalization(config, splits, ours)
    assert stats == ours
    assert "was trained with another (mean -12 -19, std 5 4), and goes on with this run's" in line


def test_the_floor_is_that_of_the_weights(run, splits):
    floors = [1e-7, 2e-9]
    config = run(log_floor=floors)
    config = replace(config, data=replace(config.data, scale="log"))
    check_initial_weights(config, splits)
    stats, [line] = with_normalization(config, splits, replace(OURS, log_floor=(1e-8, 1e-9)))
    assert (stats.mean, stats.std, stats.log_floor) == (THEIRS.mean, THEIRS.std, tuple(floors))
    assert "std 5 4 of ln x, where x is at least 1e-07 2e-09, of" in line
    check_teachers(config, prepared_data(splits, stats))


def test_the_range_is_that_of_the_weights(run, splits):
    ranges = [[-30.0, 0.0], [-40.0, -5.0]]
    config = run(clip=ranges)
    config = replace(config, data=replace(config.data, scale="percentile"))
    check_initial_weights(config, splits)
    ours = replace(OURS, clip=((-29.0, 1.0), (-39.0, -4.0)))
    stats, [line] = with_normalization(config, splits, ours)
    assert (stats.mean, stats.std, stats.clip) == (THEIRS.mean, THEIRS.std, tuple(map(tuple, ranges)))
    assert "std 5 4 of x held between -30 -40 and 0 -5, of" in line
    check_teachers(config, prepared_data(splits, stats))


def test_a_teachers_file_comes_before_a_backbone(run, splits, tmp_path):
    student = backbone_file(path := tmp_path / "backbone.safetensors", mean=[1.0, 2.0]).student
    stats, lines = with_normalization(replace(run(), student=student), splits, OURS)
    assert stats.mean == THEIRS.mean
    assert lines[1].startswith(f"normalization: {path} was trained with another (mean 1 2,")


def test_another_order_of_channels_is_refused(run, splits, tmp_path):
    swapped = backbone_file(tmp_path / "backbone.safetensors", channels=["VH", "VV"])
    for config in (swapped, run(channels=["VH", "VV"])):
        with pytest.raises(
            UserError, match=r"VH VV, the data has them as VV VH; give --data\.channels VH VV"
        ):
            check_initial_weights(config, splits)
    other = backbone_file(tmp_path / "backbone.safetensors", channels=["red", "green", "blue"])
    check_initial_weights(other, splits)  # its first convolution is adapted


def test_an_untrained_student_needs_the_runs_normalization(run, splits):
    config = run()
    student = replace(smoke(), student=config.teacher, student_train=config.teacher_train)
    with pytest.raises(
        UserError, match=r"best\.safetensors: was trained on images normalized by mean -12 -19"
    ):
        check_teachers(student, prepared_data(splits, OURS))


def test_images_in_other_units_are_warned_of(run, splits):
    _, lines = with_normalization(run(mean=[123.0, 116.0], std=[58.0, 57.0]), splits, OURS)
    assert lines[1].startswith("warning: the images differ much")


def test_other_channels_of_the_same_number_keep_the_splits_normalization(run, splits):
    stats, lines = with_normalization(run(channels=["HH", "HV"]), splits, OURS)
    assert stats == OURS
    assert "for the channels HH HV, the data has VV VH" in lines[0]


def test_weights_that_do_not_describe_themselves(run, splits):
    config = run()
    assert config.teacher.weights is not None
    (config.teacher.weights).rename(path := config.teacher.weights.with_suffix(".pth"))
    config = replace(config, teacher=replace(config.teacher, weights=path))
    stats, [line] = with_normalization(config, splits, OURS)
    assert stats == OURS
    assert line.startswith(f"warning: {path} does not say how its images were normalized")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalize": "image"}, "--data.normalize image, this run has set; use image here"),
        ({"log_floor": [0.1, 0.1]}, "--data.scale log, this run has linear; use log here, or other weights"),
        ({"clip": [[-30.0, 0.0]] * 2}, "--data.scale percentile, this run has linear; use percentile here"),
        ({"channels": ["VV"]}, r"with 1 channels \(VV\), the data has 2 \(VV, VH\)"),
        ({"model": {"align_corners": True}}, r"align-corners True; give --teacher\.align-corners"),
        (
            {"model": {"contract_dilation": False}},
            r"contract-dilation False; give --teacher\.no-contract-dilation",
        ),
    ],
)
def test_what_does_not_fit_is_refused(run, splits, changes, words):
    with pytest.raises(UserError, match=rf"best\.safetensors: was trained {words}|{words}"):
        check_initial_weights(run(**changes), splits)


def test_files_of_before_the_options_have_their_defaults(run, splits):
    old = run(model={"align_corners": None, "contract_dilation": None})
    check_initial_weights(old, splits)
    corners = replace(old, teacher=replace(old.teacher, align_corners=True))
    with pytest.raises(UserError, match=r"align-corners False; give --teacher\.no-align-corners"):
        check_initial_weights(corners, splits)


def test_a_backbone_alone_is_no_teacher(tmp_path):
    network = build_network(MODEL.arch, 2, 2, output_stride=16, head_channels=16)
    path = tmp_path / "backbone.safetensors"
    save_checkpoint(path, network.get_submodule("backbone").state_dict(), {})
    model, training = replace(MODEL, weights=path), smoke().teacher_train
    check_whole("teacher", model, training, network)
    with pytest.raises(UserError, match=r"holds a backbone alone.*--teacher-train\.steps"):
        check_whole("teacher", model, replace(training, steps=0), network)
