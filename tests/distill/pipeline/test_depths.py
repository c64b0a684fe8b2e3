"""EdgeNets of runs and files that were written with two blocks a stage keep them; others get the default."""

import json
from dataclasses import asdict, replace

import pytest

from deploy.errors import UserError
from deploy.files.atomic import write_json
from distill.config import ModelConfig
from distill.pipeline.depths import with_depths
from distill.presets import smoke
from distill.run_folder import SETTINGS, holds_run, settings
from distill.training.checkpoint import pack, save_checkpoint
from student.edge import DEPTHS, FORMER_DEPTHS
from student.zoo import build_network

EDGE = replace(smoke(), student=ModelConfig("edge/4"))


def test_open_depths_are_the_default():
    config, lines = with_depths(EDGE)
    assert (config.teacher.depths, config.student.depths, lines) == (DEPTHS, DEPTHS, [])


def test_depths_that_were_given_stay():
    config, lines = with_depths(replace(EDGE, student=ModelConfig("edge/4", depths=(1, 2, 3, 4))))
    assert (config.student.depths, lines) == ((1, 2, 3, 4), [])


@pytest.mark.parametrize("depths", [FORMER_DEPTHS, (1, 1, 2, 1)])
def test_a_network_has_the_depths_of_its_weights(tmp_path, depths):
    path = tmp_path / "edge.safetensors"
    save_checkpoint(path, pack("model", build_network("edge/4", 2, 2, depths=depths).state_dict()), {})
    config, lines = with_depths(replace(EDGE, student=ModelConfig("edge/4", weights=path)))
    assert config.student.depths == depths
    former = f"depths: student edge/4 has two residual blocks a stage, as in {path}"
    assert lines == ([former] if depths == FORMER_DEPTHS else [])


def test_weights_of_another_family_do_not_decide(tmp_path):
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, pack("model", build_network("ggcnn", 2, 2).state_dict()), {})
    config, _ = with_depths(replace(EDGE, student=ModelConfig("edge/4", weights=path)))
    assert config.student.depths == DEPTHS


def test_a_run_from_before_depths_were_recorded_is_resumed_with_two_blocks_a_stage(tmp_path):
    open_config = replace(EDGE, out=tmp_path, resume=True)
    write_json(tmp_path / SETTINGS, settings(with_depths(open_config)[0]))
    stored = json.loads((tmp_path / SETTINGS).read_text())
    assert stored.pop("student.depths") == [1, 1, 1, 1]
    assert stored.pop("teacher.depths") == [1, 1, 1, 1]
    (tmp_path / SETTINGS).write_text(json.dumps(stored))
    config, lines = with_depths(open_config)
    assert (config.teacher.depths, config.student.depths) == (DEPTHS, FORMER_DEPTHS)
    assert lines == ["depths: student edge/4 has two residual blocks a stage, as this run was started"]
    assert holds_run(config, {})
    other = replace(config, student=replace(config.student, depths=DEPTHS))
    with pytest.raises(UserError, match=r"student\.depths was \[2, 2, 2, 2\], is \[1, 1, 1, 1\]"):
        holds_run(other, {})


def test_a_run_keeps_the_depths_that_it_has_recorded(tmp_path):
    given = replace(EDGE, out=tmp_path, resume=True, student=ModelConfig("edge/4", depths=(1, 2, 1, 1)))
    write_json(tmp_path / SETTINGS, settings(with_depths(given)[0]))
    config, lines = with_depths(replace(given, student=ModelConfig("edge/4")))
    assert (config.student.depths, lines) == ((1, 2, 1, 1), [])
    assert holds_run(config, {})


def test_another_network_has_no_depths():
    network = replace(smoke().student, depths=FORMER_DEPTHS)
    with pytest.raises(
        UserError, match=r"pspnet/resnet18 has no option depths; give the default, depths \(1"
    ):
        build_network(in_channels=2, num_outputs=2, **_options(network))
    with pytest.raises(UserError, match=r"--student\.depths 0: must be at least 1"):
        ModelConfig("edge/4", depths=(1, 0, 1, 1))


def _options(model):
    left_out = ("weights", "max_ms", "on", "bundle", "mean", "std", "classes")
    return {name: value for name, value in asdict(model).items() if name not in left_out}
