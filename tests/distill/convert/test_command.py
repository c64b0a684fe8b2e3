"""Published PSPNets become checkpoints that compute the same, and nothing that would not is converted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.bundle.manifest import InputSpec
from deploy.errors import UserError
from distill.convert.command import main
from distill.export.parity import device_form
from distill.export.to_onnx import export_onnx
from distill.run import parse
from distill.training.checkpoint import load_network, read_meta
from student.zoo import build_network
from teacher.pspnet import PSPNet
from teacher.weights import load_weights
from tests.distill.convert.published_networks import MMSeg, Semseg, randomized

NETWORKS = {
    "semseg": lambda: Semseg(5),
    "mmseg V1c": lambda: MMSeg(5, deep=True),
    "mmseg V1": lambda: MMSeg(5, deep=False),
}
ARCHS = {"semseg": "pspnet/resnet50s", "mmseg V1c": "pspnet/resnet50c", "mmseg V1": "pspnet/resnet50"}
NAMES = "road,water,tree,house,sky"


@pytest.fixture(scope="module", params=NETWORKS)
def published(request, tmp_path_factory) -> tuple[str, torch.nn.Module, Path, Path]:
    """Name, network, its file, and the converted file."""
    folder = tmp_path_factory.mktemp("published")
    network = randomized(NETWORKS[request.param]())
    state = network.state_dict()
    if request.param == "semseg":
        state = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": state}, folder / "net.pth")
    assert main([str(folder / "net.pth"), str(folder / "net.safetensors"), "--classes", NAMES]) == 0
    return request.param, network, folder / "net.pth", folder / "net.safetensors"


def converted(path: Path) -> PSPNet:
    network = build_network(in_channels=3, num_outputs=5, **read_meta(path)["model"])
    load_network(network, path)
    assert isinstance(network, PSPNet)
    return network.eval()


def test_the_same_parameters_and_logits(published):
    name, network, _, path = published
    ours = converted(path)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in network.parameters())
    assert read_meta(path)["model"]["arch"] == ARCHS[name]
    # in float64, as sums in another order differ by rounding alone
    image = torch.randn(2, 3, 65, 73, dtype=torch.float64)
    with torch.no_grad():
        expected, found = network.double()(image), ours.double()(image).logits
    network.float()
    assert found.shape == expected.shape == (2, 5, 9, 10)
    assert (found - expected).abs().max() <= 5e-7 * expected.abs().max()


@pytest.mark.parametrize("option", ["align_corners", "contract_dilation"])
def test_each_option_matters(published, option):
    _, network, _, path = published
    model = dict(read_meta(path)["model"])
    model[option] = not model[option]
    other = build_network(in_channels=3, num_outputs=5, **model)
    load_network(other, path)
    image = torch.randn(1, 3, 65, 73)
    with torch.no_grad():
        difference = (other.eval()(image).logits - network(image)).abs().max()
        assert difference > 1e-3 * network(image).abs().max()


def test_the_exported_network_computes_the_same(published):
    from onnxruntime import InferenceSession

    name, _, _, path = published
    if name == "mmseg V1":
        pytest.skip("as V1c")
    network, meta = converted(path), read_meta(path)
    spec = InputSpec(("R", "G", "B"), 64, 72, "uint8", "NHWC", tuple(meta["mean"]), tuple(meta["std"]))
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 72, 3), np.uint8)
    session = InferenceSession(export_onnx(device_form(network, spec, fold=True), 20))
    logits = session.run(["logits"], {session.get_inputs()[0].name: image})[0]
    scaled = (torch.from_numpy(image).float() - torch.tensor(meta["mean"])) / torch.tensor(meta["std"])
    with torch.no_grad():
        expected = network(scaled.permute(0, 3, 1, 2)).logits.numpy()
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_file_says_how_to_use_it(published, capsys, tmp_path):
    name, _, source, _ = published
    main([str(source), str(tmp_path / "again.safetensors"), "--classes", NAMES])
    out = capsys.readouterr().out
    assert "none left over or missing" in out
    assert f"--teacher.arch {ARCHS[name]}" in out
    assert ("--teacher.align-corners --teacher.no-contract-dilation" in out) is (name == "semseg")
    meta = read_meta(tmp_path / "again.safetensors")
    assert meta["classes"] == NAMES.split(",")
    main([str(source), str(tmp_path / "third.safetensors"), "--classes", NAMES, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["arch"] == ARCHS[name]
    assert record["classes"] == NAMES.split(",")
    assert meta["mean"] == [123.675, 116.28, 103.53]


def test_the_original_file_is_refused_with_the_command(published):
    _, _, source, _ = published
    network = build_network("pspnet/resnet50", 3, 5)
    with pytest.raises(UserError, match=r"convert it first: edgedistill convert .*net\.pth net\.safetensors"):
        load_weights(network, source, 3)


def save(path: Path, state: dict[str, Any]) -> Path:
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return randomized(MMSeg(5, deep=True)).state_dict()


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("backbone.layer2.0.conv2.weight"), r"1 tensors of resnet50c are missing"),
            (lambda s: s.update({"extra.weight": torch.ones(1)}), "1 tensors have no place .* extra.weight"),
            (lambda s: s.update({"decode_head.conv_seg.bias": torch.full((5,), torch.nan)}), "not finite"),
            (lambda s: s.update({"decode_head.conv_seg.bias": torch.ones(4)}), "has the shape"),
            (lambda s: s.pop("decode_head.conv_seg.weight"), "holds no PSPNet of semseg or MMSegmentation"),
        ],
    )
    def test_what_does_not_fit(self, state, tmp_path, change, message):
        changed = dict(state)
        change(changed)
        with pytest.raises(UserError, match=message):
            main(
                [str(save(tmp_path / "a.pth", changed)), str(tmp_path / "b.safetensors"), "--classes", NAMES]
            )
        assert not (tmp_path / "b.safetensors").exists()

    def test_missing_or_wrong_names_of_classes(self, state, tmp_path):
        source, target = str(save(tmp_path / "a.pth", state)), str(tmp_path / "b.safetensors")
        with pytest.raises(UserError, match="does not name its 5 classes"):
            main([source, target])
        with pytest.raises(UserError, match="has 5 classes, 2 are named"):
            main([source, target, "--classes", "a,b"])
        with pytest.raises(UserError, match=r"with the ending \.safetensors"):
            main([source, str(tmp_path / "b.pth"), "--classes", NAMES])


def test_a_run_normalizes_as_the_teachers_weights_were_trained(published, tmp_path, capsys):
    from distill.pipeline.prepare import prepare

    name, _, _, path = published
    if name == "mmseg V1":
        pytest.skip("as V1c")
    root = make_folder(tmp_path / "data")
    common = [
        "smoke",
        "--data.name=folder",
        f"--data.root={root}",
        "--data.size",
        "48",
        "48",
        "--precision=fp32",
    ]
    model = ["--teacher.arch", ARCHS[name], "--teacher.output-stride=8", "--teacher.head-channels=512"]
    flags = [*common, *model, "--teacher.no-detail", f"--teacher.weights={path}", "--teacher-train.steps=0"]
    wrong = parse([*flags, "--student.arch=edge/4", f"--out={tmp_path / 'wrong'}"])
    semseg = ["--teacher.align-corners", "--teacher.no-contract-dilation"]
    right = parse([*flags, *semseg, "--student.arch=edge/4", f"--out={tmp_path / 'run'}"])
    if name == "mmseg V1c":
        wrong, right = right, wrong
    with pytest.raises(UserError, match=r"was trained with align-corners (True|False); give --teacher\."):
        prepare(wrong)
    context = prepare(right)
    assert context.stats.mean == (123.675, 116.28, 103.53)
    assert "normalization: mean 123.7 116.3 103.5" in capsys.readouterr().err


def make_folder(root: Path) -> Path:
    from deploy.files.images import write_png

    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(8 if split == "train" else 2):
            write_png(root / split / "images" / f"{number}.png", rng.integers(0, 255, (48, 48, 3), np.uint8))
            write_png(
                root / split / "masks" / f"{number}.png",
                np.arange(48 * 48, dtype=np.uint8).reshape(48, 48) % 5,
            )
    (root / "classes.json").write_text(json.dumps(NAMES.split(",")), encoding="utf-8")
    return root
