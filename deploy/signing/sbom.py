"""What a bundle consists of, as a software bill of materials: CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

All of it stands in the manifest, so a signature of the bundle covers it.
"""

import uuid
from typing import Any
from urllib.parse import quote

import msgspec

from deploy.bundle.manifest import Manifest

PACKAGES = (
    *("accelerate", "edgedistill", "numpy", "onnx", "onnxscript", "opencv-python-headless"),
    *("safetensors", "timm", "torch", "torchvision"),
)
"""Packages whose versions the provenance of a bundle has, under their names."""
DATA = "data "
"""Keys of the provenance that begin so have the fingerprint of a split: "data train"."""


def cyclonedx(manifest: Manifest) -> bytes:
    """The bill of materials of a bundle, as indented JSON; the same for the same manifest.

    Files have the checksums of the manifest. Splits of the training data have their fingerprint as a property: the
    SHA-256 of names and sizes of all their files and of the content of some (`distill.data.fingerprint`), so it is no
    checksum of a file. Versions are those of the export; what a device runs with is not known to the bundle.
    """
    data = [_data(key.removeprefix(DATA), value) for key, value in _of(manifest, DATA)]
    libraries = [
        _library(name, manifest.provenance[name]) for name in PACKAGES if name in manifest.provenance
    ]
    parts = [*_files(manifest), *data, *libraries, *_python(manifest)]
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, manifest.digest)}",
        "version": 1,
        "metadata": {"component": _model(manifest, [one["bom-ref"] for one in data])},
        "components": parts,
        "dependencies": [{"ref": "bundle", "dependsOn": [one["bom-ref"] for one in parts]}],
    }
    return msgspec.json.format(msgspec.json.encode(bom), indent=2) + b"\n"


def _model(manifest: Manifest, data: list[str]) -> dict[str, Any]:
    known = {"python", *PACKAGES}
    others = [
        (key, text)
        for key, text in manifest.provenance.items()
        if key not in known and not key.startswith(DATA)
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": "bundle",
        "name": manifest.name,
        "hashes": [_sha256(manifest.digest)],
        "modelCard": {
            "modelParameters": {"task": manifest.task, "datasets": [{"ref": reference} for reference in data]}
        },
        "properties": [{"name": f"edgedistill:{key}", "value": text} for key, text in others],
    }


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_sha256(entry.sha256)]}
        for name, entry in manifest.files.items()
    ]


def _data(split: str, fingerprint: str) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"data:{split}",
        "name": f"{split} split",
        "data": [{"type": "dataset", "name": split}],
        "properties": [{"name": "edgedistill:fingerprint", "value": fingerprint}],
    }


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{quote(version)}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _python(manifest: Manifest) -> list[dict[str, Any]]:
    version = manifest.provenance.get("python")
    if version is None:
        return []
    return [{"type": "platform", "bom-ref": f"python@{version}", "name": "python", "version": version}]


def _of(manifest: Manifest, prefix: str) -> list[tuple[str, str]]:
    return [(key, text) for key, text in manifest.provenance.items() if key.startswith(prefix)]


def _sha256(content: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": content}
