"""Where networks of transformers are found, and what is refused."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from deploy.errors import UserError
from teacher import hub
from teacher.external import hf_files, origin
from teacher.external.hf_files import hf_origin
from teacher.external.hf_networks import hf_network
from tests.teacher.external.hf_folders import IMAGENET, NAMES, saved


def test_classes_and_normalization_are_those_of_the_folder(tmp_path):
    saved(tmp_path / "a", "segformer", rescale_factor=1 / 255, **IMAGENET)
    found = hf_origin(str(tmp_path / "a"))
    assert found.classes == NAMES
    assert found.mean == pytest.approx((123.675, 116.28, 103.53))
    assert found.std == pytest.approx((58.395, 57.12, 57.375))
    saved(tmp_path / "b", "segformer", do_rescale=False, image_mean=[1, 2, 3], image_std=[4, 5, 6])
    assert (hf_origin(str(tmp_path / "b")).mean, hf_origin(str(tmp_path / "b")).std) == ((1, 2, 3), (4, 5, 6))
    saved(tmp_path / "c", "segformer")
    assert hf_origin(str(tmp_path / "c")).mean == ()
    (tmp_path / "c" / "preprocessor_config.json").write_text('{"image_mean": "no"}')
    with pytest.raises(UserError, match=r"c/preprocessor_config\.json: cannot be read"):
        hf_origin(str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/no/such", "no such folder"),
        ("./none", "no such folder"),
        ("a/b/c", "no such folder"),
        (
            "nobody/nothing",
            r"neither a folder nor in the hub's cache, .* HF_HUB_OFFLINE is set; save it to a folder",
        ),
    ],
)
def test_what_is_not_there_is_one_line_at_once(name, words, monkeypatch):
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: True)
    hub.why_unreachable.cache_clear()
    began = time.monotonic()
    with pytest.raises(UserError, match=f"hf/{name}: .*{words}") as caught:
        hf_network(name, 3, 5)
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_have_the_same_remedy(monkeypatch):
    monkeypatch.setattr(hf_files, "cached_file", lambda *_: None)
    monkeypatch.setattr(hf_files, "why_unreachable", lambda: "no network")
    with pytest.raises(
        UserError, match=r"its weights are not in .*: no network; save it to a folder .*hf/<folder>"
    ):
        hf_files.require_weights("nobody/nothing", hf_files.Place("nobody/nothing", True))


def test_a_folder_without_a_network_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the folder has no config\.json"):
        hf_network(str(tmp_path), 3, 5)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="its configuration cannot be read"):
        hf_network(str(tmp_path), 3, 5)


def test_pickled_weights_are_not_read(tmp_path):
    network = saved(tmp_path, "segformer")
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    assert hf_network(str(tmp_path), 3, 5).new_tensors == ()  # its form alone
    with pytest.raises(UserError, match=r"has no model\.safetensors; files of other formats are not read"):
        hf_network(str(tmp_path), 3, 5, pretrained=True)


def test_code_in_a_folder_is_not_run(tmp_path, capsys):
    saved(tmp_path, "segformer")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("print('executed')\nclass Config: pass\n")
    with pytest.raises(UserError, match="its configuration cannot be read"):
        hf_network(str(tmp_path), 3, 5)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("change", ["missing", "shape", "damaged"])
def test_weights_that_do_not_fit_are_named(tmp_path, change):
    saved(tmp_path, "segformer")
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.startswith("segformer."))
    if change == "damaged":
        path.write_bytes(b"nothing")
    else:
        value = state.pop(name)
        save_file(
            state | ({name: torch.cat([value, value])} if change == "shape" else {}), path, {"format": "pt"}
        )
    words = "cannot be loaded" if change == "damaged" else "1 tensors are missing .* first segformer"
    with pytest.raises(UserError, match=words):
        hf_network(str(tmp_path), 3, 5, pretrained=True)


def test_an_absent_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(origin, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hf/x: needs transformers; pip install 'edgedistill\[hf\]'"):
        hf_network("x", 3, 5)
