"""A run stands for its student."""

import pytest

import deploy
from deploy.bundle.find import bundle_in, find_bundle
from deploy.cli import main
from deploy.errors import UserError
from tests.deploy.tiny import make_bundle, make_image


def test_a_run_stands_for_its_student(tmp_path, capsys):
    bundle = tmp_path / "run" / "student.bundle"
    make_bundle(bundle)
    for given in (bundle, tmp_path / "run"):
        assert bundle_in(given) == find_bundle(str(given)) == bundle
        assert deploy.load(given, "onnxruntime")(make_image()).labels.shape == (32, 48)
        for command in ("info", "verify"):
            assert main([command, str(given)]) == 0
    assert "tiny-rgb" in capsys.readouterr().out


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds neither manifest"):
        find_bundle(tmp_path)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_bundle(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no manifest\.json, so it is not a bundle"):
        deploy.load(tmp_path)
