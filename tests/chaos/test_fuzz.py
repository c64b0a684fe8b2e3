"""Fuzzing of what is read from files and commands: a result or one line, never another exception."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.backends.choice import recall
from deploy.backends.proof import failed_here
from deploy.backends.setting import Setting
from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import read_sidecar
from deploy.bundle.manifest import MANIFEST, MOST_VALUES
from deploy.errors import UserError
from deploy.evaluation.labeled_data import read_info
from deploy.files.images import read_mask
from deploy.measure.records import read_candidates
from deploy.text import shown
from distill.config import DataConfig
from distill.data.datasets.folder import open_folder
from distill.losses.expression import format_terms, parse_terms
from distill.losses.registry import SEGMENTATION_LOSSES
from distill.losses.task_loss import parse_task_terms
from tests.chaos.damages import fields
from tests.deploy.hostile import seal
from tests.deploy.tiny import make_bundle, make_manifest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    make_bundle(folder, "sar")
    return folder


@pytest.fixture(scope="module")
def good(bundle) -> dict[str, Any]:
    return json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))


def refused(error: UserError) -> None:
    assert shown(str(error)) == str(error)
    assert len(str(error)) < 3000


@given(st.data())
@settings(max_examples=300)
def test_manifests_with_any_values_and_mended_digests(bundle, good, data):
    raw = json.loads(json.dumps(good))
    for _ in range(data.draw(st.integers(1, 3))):
        places = fields(raw)
        place, key = places[data.draw(st.integers(0, len(places) - 1))]
        place[key] = data.draw(VALUES)
        if not fields(raw):
            break
    try:
        seal(bundle, raw)
    except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError, ValueError, OSError):
        return  # nothing that JSON or a file's name can hold
    try:
        found = read_manifest(bundle)
    except UserError as error:
        refused(error)
    else:
        spec = found.input
        assert 0 < spec.height * spec.width * len(spec.channels) <= MOST_VALUES
        assert len(found.classes) <= found.ignore_label <= 255
        assert all(value > 0 and np.float32(1 / value) > 0 for value in spec.std)
        assert all(Path(name).name == name for name in found.files)


READERS = {
    "manifest": (MANIFEST, lambda folder, _: read_manifest(folder)),
    "sidecar": ("engines/a.json", lambda folder, _: read_sidecar(folder / "engines" / "a.engine")),
    "choices": ("engines/auto.json", lambda folder, manifest: recall(folder, manifest, "key")),
    "receipt": ("engines/openvino-int8.receipt.json", lambda folder, _: failed_here(folder, INT8)),
    "data": ("data.json", lambda folder, _: read_info(folder)),
    "candidates": ("candidates.json", lambda folder, _: read_candidates(folder)),
}
INT8 = Setting("openvino", "int8")


@pytest.mark.parametrize("reader", READERS)
@given(content=st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(content=b"[" * 100_000)
@example(content=b'{"schema_version":' * 50_000)
@example(content=b'{"schema_version": 1e400}')
@example(content=b'{"schema_version": 99999999999999999999999}')
@settings(max_examples=60)
def test_files_with_any_content(reader, content, tmp_path_factory):
    name, read = READERS[reader]
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    try:
        read(folder, make_manifest())
    except UserError as error:
        refused(error)


LETTERS = st.sampled_from("kldcwfeaturmaps+-*/()=.,0123456789et[]{}'\"#:\\\n _λ")
LOSSES = st.text(LETTERS, max_size=60) | st.text(max_size=60)


@pytest.mark.parametrize("parse", [parse_terms, partial(parse_task_terms, losses=SEGMENTATION_LOSSES)])
@given(text=LOSSES)
@example(text="+".join(["kl"] * 3000))
@example(text="(" * 3000 + "kl" + ")" * 3000)
@example(text="-" * 100_000 + "1*kl")
@example(text="kl" + "(t=1)" * 2000)
@example(text="kl(t=" + "9" * 10_000 + ")")
@example(text="\x00")
@example(text="kl(t=1e308*10)")
@example(text="__import__('os').system('false')")
@settings(max_examples=300)
def test_losses_of_any_text(parse, text):
    try:
        terms = parse(text)
    except UserError as error:
        refused(error)
    else:
        assert parse(format_terms(terms)) == terms


@given(content=st.binary(max_size=300), suffix=st.sampled_from((".png", ".npy", ".tif", ".webp", ".bmp")))
@settings(max_examples=100)
def test_masks_with_any_content(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mask{suffix}")
        path.write_bytes(content)
        try:
            read_mask(path)
        except UserError as error:
            refused(error)


@given(content=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(content=b"[" * 100_000)
@example(content=b'["a\\nb", "\\u001b[2J"]')
@settings(max_examples=100)
def test_classes_with_any_content(content):
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "val"):
            for kind, mode in (("images", "RGB"), ("masks", "L")):
                Path(folder, split, kind).mkdir(parents=True)
                Image.new(mode, (8, 8)).save(Path(folder, split, kind, "a.png"))
        Path(folder, "classes.json").write_bytes(content)
        try:
            open_folder(DataConfig(name="folder", root=folder), 0)
        except UserError as error:
            refused(error)
