"""The bill of materials: what it lists, from what the manifest says."""

import json

import msgspec

from deploy.bundle.manifest import FileEntry
from deploy.signing.sbom import cyclonedx
from tests.deploy.tiny import make_manifest

PROVENANCE = {
    "student": "edgenet",
    "data train": "a" * 64,
    "data val": "b" * 64,
    "python": "3.11.2",
    "torch": "2.9.1+cpu",
    "numpy": "2.1.0",
}


def bom(provenance=PROVENANCE):
    files = {"model.onnx": FileEntry("c" * 64, 10, "fp32")}
    manifest = msgspec.structs.replace(make_manifest(), files=files, digest="d" * 64, provenance=provenance)
    return json.loads(cyclonedx(manifest))


def test_it_lists_model_files_data_and_packages():
    parts = {one["bom-ref"]: one for one in bom()["components"]}
    assert parts["file:model.onnx"]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert parts["data:train"]["properties"] == [{"name": "edgedistill:fingerprint", "value": "a" * 64}]
    assert parts["pkg:pypi/torch@2.9.1%2Bcpu"]["version"] == "2.9.1+cpu"
    assert {one["type"] for one in parts.values()} == {"file", "data", "library", "platform"}
    assert len(parts) == 6


def test_the_model_refers_to_its_data_and_depends_on_all():
    whole = bom()
    model = whole["metadata"]["component"]
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": "data:train"}, {"ref": "data:val"}]
    assert model["properties"] == [{"name": "edgedistill:student", "value": "edgenet"}]
    [dependency] = whole["dependencies"]
    assert set(dependency["dependsOn"]) == {one["bom-ref"] for one in whole["components"]}


def test_an_old_bundle_without_these_lists_its_files():
    assert [one["type"] for one in bom({})["components"]] == ["file"]
