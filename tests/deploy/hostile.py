"""Bundles as someone who means harm would write them: edited manifests and files whose checksums are mended."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.bundle.manifest import MANIFEST


def edit(bundle: Path, *keys: str | int, value: Any) -> None:
    """Set a field of the manifest, such as `"input", "height"`, and mend the digest."""
    raw = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    place = raw
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    seal(bundle, raw)


def seal(bundle: Path, raw: dict[str, Any]) -> None:
    """Write a manifest with the checksums of the files as they are, and its digest."""
    files = raw.get("files")
    for name, entry in files.items() if isinstance(files, dict) else ():
        if isinstance(entry, dict) and len(name) < 256 and (bundle / name).is_file():
            data = (bundle / name).read_bytes()
            entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    raw.pop("digest", None)
    raw["digest"] = hashlib.sha256(msgspec.json.encode(raw, order="sorted")).hexdigest()
    (bundle / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")


def put(bundle: Path, name: str, data: bytes) -> None:
    """Replace a file, and mend the checksums."""
    (bundle / name).write_bytes(data)
    seal(bundle, json.loads((bundle / MANIFEST).read_text(encoding="utf-8")))


def constant_network(
    labels: np.ndarray | None = None,
    logits: np.ndarray | None = None,
    nodes: list[onnx.NodeProto] | None = None,
    shapes: dict[str, list[int | str]] | None = None,
) -> bytes:
    """A network for the tiny rgb bundle that returns constants, whatever it is asked, besides `nodes`."""
    labels = np.zeros((1, 32, 48), np.uint8) if labels is None else labels
    logits = np.zeros((1, 3, 4, 6), np.float32) if logits is None else logits
    shapes = {"image": [1, 32, 48, 3], "labels": list(labels.shape), "logits": list(logits.shape)} | (
        shapes or {}
    )
    kinds = {
        name: helper.np_dtype_to_tensor_dtype(array.dtype)
        for name, array in (("labels", labels), ("logits", logits))
    }
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["given labels"], ["labels"]),
            helper.make_node("Identity", ["given logits"], ["logits"]),
            *(nodes or []),
        ],
        "hostile",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shapes["image"])],
        [helper.make_tensor_value_info(name, kind, shapes[name]) for name, kind in kinds.items()],
        [numpy_helper.from_array(labels, "given labels"), numpy_helper.from_array(logits, "given logits")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()
