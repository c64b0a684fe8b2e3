"""`edgedistill card`: the model card of a bundle, in the format of the Hugging Face hub.

The head is YAML, written as JSON values, which are YAML, too. Everything comes from the bundle itself.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.find import find_bundle
from deploy.bundle.manifest import RECEIPT, Manifest
from deploy.command_parser import CommandParser
from deploy.evaluation.receipt import Receipt, table
from deploy.files.atomic import atomic_write
from deploy.files.json_files import read_record
from deploy.files.json_output import add_json, print_result
from deploy.tasks.registry import task_of
from deploy.text import shown

PIPELINES = {"segmentation": "image-segmentation", "regression": "depth-estimation", "grasp": "robotics"}
"""Names of the tasks on the hub."""
USE = """\
```python
import deploy  # pip install edgedistill

model = deploy.load("{name}")
result = model("photo.png")
```"""


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: there is no bundle, or it is damaged.
    """
    parser = CommandParser(
        prog="edgedistill card",
        description="Write the model card of a bundle, as the Hugging Face hub reads it.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_OR_RUN")
    parser.add_argument("--out", type=Path, metavar="README.md", help="default: print it")
    parser.add_argument(
        "--license", default="", metavar="ID", help="of the weights, such as apache-2.0; say it if known"
    )
    add_json(parser)
    options = parser.parse_args(argv)
    text = card(find_bundle(options.bundle), options.license)
    if options.out is not None:
        with atomic_write(options.out, "w") as file:
            file.write(text)
    line = (
        text[:-1] if options.out is None else f"{options.out}: add what the model is for and where it fails"
    )
    print_result(line, {"file": options.out, "text": text}, options.json)
    return 0


def card(bundle: Path, license_id: str = "") -> str:
    """The model card as Markdown with a YAML head."""
    manifest = read_manifest(bundle)
    lines = ["---", *_head(manifest, license_id), "---", "", *_body(bundle, manifest)]
    return "\n".join(lines) + "\n"


def _head(manifest: Manifest, license_id: str) -> Iterator[str]:
    fields: dict[str, object] = {
        "library_name": "edgedistill",
        "pipeline_tag": PIPELINES[manifest.task],
        "tags": ["edgedistill", "onnx", "knowledge-distillation", manifest.task],
    }
    if license_id:
        fields["license"] = license_id
    results = list(_results(manifest))
    if results:
        fields["model-index"] = results
    for name, value in fields.items():
        yield f"{name}: {json.dumps(value, ensure_ascii=False)}"


def _results(manifest: Manifest) -> Iterator[dict[str, object]]:
    """What was measured, by the hub's "model-index"."""
    metric = task_of(manifest).metric
    score = manifest.metrics.get(metric.key)
    if not isinstance(score, float):
        return
    dataset = str(manifest.metrics.get("dataset", "")) or "unnamed"
    result = {
        "task": {"type": PIPELINES[manifest.task]},
        "dataset": {"name": dataset, "type": dataset, "split": str(manifest.metrics.get("split", ""))},
        "metrics": [{"name": metric.name, "type": metric.key, "value": score}],
    }
    yield {"name": manifest.name, "results": [result]}


def _body(bundle: Path, manifest: Manifest) -> Iterator[str]:
    spec = manifest.input
    yield f"# {_plain(manifest.name)}"
    yield ""
    yield f"A network for {manifest.task}, distilled, exported and verified with edgedistill."
    yield ""
    yield "## Input and output"
    yield ""
    channels = _plain(", ".join(spec.channels))
    yield f"- {spec.dtype} images, {spec.height}×{spec.width}, channels {channels}; other sizes: {spec.resize}"
    if spec.nodata:
        yield "- pixels that are not finite carry no data and get no label"
    for output in manifest.outputs:
        yield f"- `{_plain(output.name)}`: {_plain(output.meaning)}"
    yield f"- classes: {_plain(', '.join(info.name for info in manifest.classes))}"
    if manifest.threshold is not None:
        yield f"- {_plain(manifest.classes[1].name)} from a probability of {manifest.threshold:g}"
    yield ""
    yield "## Use"
    yield ""
    yield USE.format(name=bundle.resolve().name)
    yield ""
    if (bundle / RECEIPT).is_file():
        receipt = read_record(bundle / RECEIPT, Receipt, "export the bundle again")
        yield from ["## Accuracy from training to the device", "", "```", table(receipt), "```", ""]
    yield "## Files"
    yield ""
    yield "| file | precision | MB | SHA-256 |"
    yield "|---|---|--:|---|"
    for name, entry in manifest.files.items():
        yield f"| `{_plain(name)}` | {entry.precision or '–'} | {entry.bytes / 1e6:.2f} | `{entry.sha256[:16]}…` |"
    yield ""
    yield "## Origin"
    yield ""
    for name, value in manifest.provenance.items():
        yield f"- {_plain(name)}: {_plain(value)}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    escaped = shown(text)
    for character in "\\`*_[]<>|#":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped
