"""Networks exported untrained: bundles that run in fp32 and INT8, with an index."""

from functools import partial

import numpy as np
import onnx
import pytest

from deploy.backends.engine import model_file
from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.errors import UserError
from deploy.loading import load
from deploy.measure.records import read_candidates
from distill.export_config import ExportConfig
from distill.selection.untrained import Untrained, segmentation_target, write_candidates
from student.zoo import build_network


def edge(width, channels, **options):
    arch = f"edge/{width}"
    return Untrained(arch, options, partial(build_network, arch, channels, 3, **options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("candidates")
    lines: list[str] = []
    target = segmentation_target((32, 64), 3, 3, ExportConfig(), int8=True)
    write_candidates(path, [edge(2, 3), edge(2, 3, detail=True)], target, lines.append)
    lines = [line for line in lines if "…" not in line]  # heartbeats of a busy machine
    assert lines == ["exporting edge/2 (1 of 2)", "exporting edge/2:detail=True (2 of 2)"]
    return path


def test_the_index_tells_size_and_operations(folder):
    first, second = read_candidates(folder).candidates
    assert (first.name, second.name) == ("edge/2", "edge/2:detail=True")
    assert second.macs > first.macs
    with_branches = sum(p.numel() for p in build_network("edge/2", 3, 3, aux=False).parameters())
    assert first.parameters < with_branches, "as deployed, branches are folded"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_form_runs(folder, precision):
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    for one in read_candidates(folder).candidates:
        bundle = folder / one.bundle
        verify_files(bundle, read_manifest(bundle))
        result = load(bundle, "onnxruntime", threads=1, precision=precision)(image)
        assert result.labels.shape == (32, 64)
        assert np.isfinite(result.probabilities).all()


def test_int8_forms_compute_in_int8(folder):
    [one, _] = read_candidates(folder).candidates
    graph = onnx.load(model_file(folder / one.bundle, "onnxruntime", "int8")).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantized = [node for node in convolutions if made.get(node.input[0]) == "DequantizeLinear"]
    assert len(quantized) == len(convolutions) > 10


def test_without_int8_there_are_fp32_files_only(tmp_path):
    target = segmentation_target((32, 32), 2, 3, ExportConfig(), int8=False)
    write_candidates(tmp_path, [edge(2, 2)], target, lambda _: None)
    [one] = read_candidates(tmp_path).candidates
    manifest = read_manifest(tmp_path / one.bundle)
    assert list(manifest.files) == ["model.onnx"]
    assert manifest.input.dtype == "float32"
    assert "untrained" in manifest.provenance["weights"]


def test_a_network_that_cannot_be_built_is_refused(tmp_path):
    target = segmentation_target((32, 32), 1, 3, ExportConfig(), int8=False)
    broken = Untrained("unet-fusion", {}, partial(build_network, "unet-fusion", 1, 3))
    with pytest.raises(UserError, match="unet-fusion: joins two modalities"):
        write_candidates(tmp_path, [broken], target, lambda _: None)
