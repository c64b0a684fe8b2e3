"""Manifests with mended checksums: every field has a range, and what is out of it is one line that names the field."""

import json
import time

import msgspec
import pytest

from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.manifest import MANIFEST, MOST_BYTES, ClassInfo, plain_name
from deploy.errors import UserError
from tests.deploy.hostile import edit, seal
from tests.deploy.tiny import make_bundle, make_manifest

LONG = "x" * 5000


@pytest.fixture
def bundle(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def refusal(bundle) -> str:
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        read_manifest(bundle)
    assert time.perf_counter() - start < 5
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500 + len(str(bundle))
    return message


def test_mended_checksums_are_believed(bundle):
    edit(bundle, "provenance", "command", value="another")
    assert read_manifest(bundle).provenance["command"] == "another"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        (("input", "height"), 10**18, "input.height"),
        (("input", "height"), -1, "input.height"),
        (("input", "width"), 0, "input.width"),
        (("input", "width"), 1e300, "input.width"),
        (("input", "std"), [1.0, None, 1.0], "input.std"),  # as JSON writes NaN
        (("input", "std"), [1.0, 0.0, 1.0], "input.std"),
        (("input", "std"), [1.0, 1e-300, 1.0], "input.std"),
        (("input", "mean"), [1e39, 0.0, 0.0], "input.mean"),
        (("input", "depth"), 3, "depth"),
        (("input", "channels"), [LONG, "G", "B"], "input.channels"),
        (("input", "channels"), ["R\n", "G", "B"], "channel"),
        (("classes", 0, "name"), LONG, "classes[0].name"),
        (("classes", 0, "name"), "sky\x1b[2J", "class"),
        (("classes", 0, "name"), "sky\u202eyks", "class"),
        (("classes", 0, "color"), [0, 0, 256], "color"),
        (("classes",), [], "classes"),
        (("ignore_label",), 2, "ignore_label"),
        (("ignore_label",), 256, "ignore_label"),
        (("name",), LONG, "name"),
        (("name",), "a\nb", "name"),
        (("task",), "x" * 201, "task"),
        (("temperature",), 1e-300, "temperature"),
        (("temperature",), 1e300, "temperature"),
        (("temperature",), -1.0, "temperature"),
        (("threshold",), 1.5, "threshold"),
        (("threshold",), 0.5, "threshold"),  # of three classes
        (("metrics",), {"int8 golden agreement": "all of them"}, "int8 golden agreement"),
        (("metrics",), {"int8 golden agreement": 2.0}, "int8 golden agreement"),
        (("metrics",), {"a\nb": 1.0}, "metrics"),
        (("metrics",), {"note": "x" * 100_000}, "metrics"),
        (("provenance",), {"command": 3}, "provenance"),
        (("outputs", 0, "shape"), [10**30], "outputs[0].shape"),
        (("outputs", 0, "shape"), [-1], "outputs[0].shape"),
        (("outputs", 0, "shape"), [1] * 100, "outputs[0].shape"),
        (("outputs", 0, "name"), "la\nbels", "output"),
        (("files",), {"../../etc/passwd": {"sha256": "0" * 64, "bytes": 1}}, "files"),
        (("files",), {"..": {"sha256": "0" * 64, "bytes": 1}}, "files"),
        (("files",), {"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}, "files"),
        (("files",), {"a\nb": {"sha256": "0" * 64, "bytes": 1}}, "files"),
        (("files",), {LONG: {"sha256": "0" * 64, "bytes": 1}}, "files"),
        (("files",), {"a": {"sha256": "0", "bytes": 1}}, "sha256"),
        (("files",), {"a": {"sha256": "0" * 64, "bytes": -1}}, "bytes"),
        (("files",), {"a": {"sha256": "0" * 64, "bytes": 10**18}}, "bytes"),
        (("files",), {f"{i}": {"sha256": "0" * 64, "bytes": 1} for i in range(2000)}, "files"),
        (("files",), {f"{i}": {"sha256": "0" * 64, "bytes": 1} for i in range(1_000_000)}, "MiB"),
        (("digest",), [], "digest"),
        (("schema_version",), 0, "schema_version"),
        (("schema_version",), True, "schema_version"),
        (("schema_version",), 1e300, "schema_version"),
        (("schema_version",), {}, "schema_version"),
        (("new",), 1, "new"),
    ],
)  # fmt: skip
def test_out_of_range(bundle, field, value, named):
    edit(bundle, *field, value=value)
    if field == ("digest",):
        raw = json.loads((bundle / MANIFEST).read_text())
        (bundle / MANIFEST).write_text(json.dumps(raw | {"digest": value}))
    assert named in refusal(bundle)


def test_sides_that_are_possible_each_but_not_together(bundle):
    raw = json.loads((bundle / MANIFEST).read_text())
    raw["input"] |= {"height": 16384, "width": 16384}
    seal(bundle, raw)
    assert "values per image" in refusal(bundle)


@pytest.mark.parametrize("content", [b'{"a":' * 500_000, b"[" * 1_000_000, b"[" * 900 + b"]" * 900])
def test_deep_nesting(bundle, content):
    (bundle / MANIFEST).write_bytes(content)
    assert "is not a manifest" in refusal(bundle)


def test_nesting_within_a_field(bundle):
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace("{", '{"deep":' + "[" * 5000 + "]" * 5000 + ",", 1))
    assert "is not a manifest" in refusal(bundle)


def test_a_huge_file_is_not_read(bundle):
    with open(bundle / MANIFEST, "wb") as file:
        file.truncate(1 << 40)
    assert f"more than {MOST_BYTES >> 20} MiB" in refusal(bundle)


def test_an_export_does_not_end_because_of_the_name_of_its_folder(tmp_path):
    """A folder or a command may be anything; a class of that kind is refused early."""
    odd = "caf\udce9\x1b[2J\n" + "x" * 300
    manifest = msgspec.structs.replace(make_manifest(), name=plain_name(odd), provenance={"command": odd})
    write_bundle(tmp_path / "b", manifest, {})
    found = read_manifest(tmp_path / "b")
    assert found.name.startswith(r"caf\udce9\x1b[2J\nxxx")
    assert found.provenance["command"].startswith(r"caf\udce9\x1b[2J" + "\nxxx")
    with pytest.raises(ValueError, match=r"class: the name 'a.nb' holds a control character"):
        ClassInfo("a\nb", (0, 0, 0))
