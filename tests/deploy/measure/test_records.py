"""The files of a choice by budget are read as they were written, and refused when they are not what they should be."""

import json

import msgspec
import pytest

from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.measure.records import (
    CANDIDATES,
    Candidate,
    Candidates,
    Shape,
    named,
    read_candidates,
    read_measurement,
)
from tests.deploy.measure.measurements import EDGE, measurement, row, timed
from tests.deploy.tiny import make_manifest


def test_a_measurement_survives_a_round_trip(tmp_path):
    options = {"detail": True, "output_stride": 16, "depths": (2, 2, 2, 2), "kind": "a"}
    written = measurement(*EDGE.rows, row("edge/20", 0.4, timed(2.0), options=options))
    write_json(tmp_path / "measured.json", written)
    assert read_measurement(tmp_path / "measured.json") == written


def test_candidates_survive_a_round_trip(tmp_path):
    written = Candidates((Candidate("edge/20", {"detail": True}, 10, 20, "a.bundle"),))
    write_json(tmp_path / CANDIDATES, written)
    assert read_candidates(tmp_path) == written


def test_a_network_is_written_with_its_options():
    assert named("edge-nano", {}) == "edge-nano"
    assert named("pspnet/resnet18", {"output_stride": 16, "detail": True}) == (
        "pspnet/resnet18:detail=True,output_stride=16"
    )


def test_the_shape_of_a_bundle_counts_the_maps_of_its_logits():
    manifest = make_manifest("sar")
    shape = Shape.of(manifest.input, manifest.outputs, manifest.task)
    assert shape == Shape(32, 48, 2, 2, "segmentation", "float32")
    assert shape.text == "32×48, 2 channels (float32), 2 classes"


def test_the_fastest_form_is_looked_for_in_the_precisions_asked_for():
    one = row("edge-nano", 0.25, timed(2.0), timed(1.0, "onnxruntime"), timed(0.5, precision="fp16"))
    assert one.fastest(("int8",)).backend == "onnxruntime"
    assert one.fastest(("int8", "fp16")).precision == "fp16"
    assert one.fastest(("fp32",)) is None


def test_edge_networks_of_version_1_have_two_blocks_a_stage(tmp_path):
    former = (2, 2, 2, 2)
    deep = row("edge/20", 0.4, timed(2.0), options={"depths": (1, 1, 1, 1)})
    other = row("unet", 0.4, timed(2.0), options={"width": 4})
    write_json(
        tmp_path / "old.json", msgspec.structs.replace(measurement(*EDGE.rows, deep, other), schema_version=1)
    )
    *edge, given, unet = read_measurement(tmp_path / "old.json").rows
    assert [one.candidate and one.candidate.options for one in edge] == [{"depths": former}] * 3
    assert edge[0].name == "edge-medium:depths=(2, 2, 2, 2)"
    assert (given, unet) == (deep, other)
    listed = (Candidate("edge/20", {"detail": True}, 10, 20, "a.bundle"),)
    write_json(tmp_path / CANDIDATES, Candidates(listed, schema_version=1))
    [one] = read_candidates(tmp_path).candidates
    assert one.options == {"depths": former, "detail": True}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(schema_version=3), "schema version 3, this edgedistill reads 2; upgrade"),
        (
            lambda raw: raw.update(rows=[]),
            r"`array` of length >= 1 - at `\$.rows`; make it again: edgedistill",
        ),
        (lambda raw: raw["rows"][0]["forms"][0].update(p50=0.0), r"p50"),
        (lambda raw: raw["rows"][0]["forms"][0].update(p50="fast"), r"p50"),
        (lambda raw: raw["rows"][0]["shape"].pop("channels"), "missing required field `channels`"),
        (lambda raw: raw["rows"][0].update(speed=1), "unknown field `speed`"),
    ],
)
def test_a_damaged_measurement_is_refused(tmp_path, change, words):
    path = tmp_path / "measured.json"
    write_json(path, EDGE)
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=words) as refusal:
        read_measurement(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1, 2]", b'"text"'])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "measured.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"measured\.json: .*make it again: edgedistill measure FOLDER"):
        read_measurement(path)


def test_a_missing_file_is_told_how_to_make(tmp_path):
    with pytest.raises(UserError, match=r"no such file; make it: edgedistill measure FOLDER -o there\.json"):
        read_measurement(tmp_path / "there.json")
    with pytest.raises(UserError, match="no such file; make it: edgedistill students --ms"):
        read_candidates(tmp_path)


@pytest.mark.parametrize("bundle", ["../other", "/other", "a/b"])
def test_an_index_names_only_folders_beside_it(tmp_path, bundle):
    write_json(tmp_path / CANDIDATES, Candidates((Candidate("edge/20", {}, 10, 20, bundle),)))
    with pytest.raises(UserError, match="is not the name of a folder beside it"):
        read_candidates(tmp_path)
