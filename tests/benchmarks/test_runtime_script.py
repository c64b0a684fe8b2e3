"""benchmarks/runtime.py on a tiny bundle: a table, JSON, rivals that compute the same, and a short stream."""

import argparse
import json

import msgspec
import numpy as np
import pytest

from benchmarks import runtime_soak
from benchmarks.runtime import BARE, Row, main, table
from benchmarks.runtime_rivals import naive_form, naive_runtime, session
from deploy.errors import UserError
from deploy.loading import load
from tests.deploy.precisions import make_precisions
from tests.deploy.tiny import SPECS, WEIGHTS, make_bundle, make_image, make_model

FAST = ["--runs", "2", "--threads", "1", "--frame", "96x64"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_precisions(tmp_path_factory.mktemp("runtime") / "bundle", "int8")


def test_a_table_says_where_int8_is_slower():
    rows = [
        Row("b", "openvino", kind, BARE, (ms, ms, ms), 1.0) for kind, ms in (("fp32", 1.0), ("int8", 2.0))
    ]
    last = table(rows).splitlines()[-1]
    assert last.startswith(
        f"INT8 is slower than fp32 here: b, {BARE} on openvino 0.50× (2.00 ms against 1.00); "
    )


def test_table_and_json(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runtime_soak, "SECONDS", 2)
    report = tmp_path / "runtime.json"
    main([str(bundle), *FAST, "--backends", "onnxruntime", "--soak", "0.005", "--json", str(report)])
    printed = capsys.readouterr().out
    written = json.loads(report.read_text())
    ways = [BARE, "runtime, 48×32", "naive, 48×32", "runtime, 96×64", "naive, 96×64"]
    assert [row["way"] for row in written["rows"]] == ways * 2
    assert {row["precision"] for row in written["rows"]} == {"fp32", "int8"}
    assert all(0 < row["ms"][0] <= row["ms"][1] <= row["ms"][2] for row in written["rows"])
    assert [row["ratio"] for row in written["rows"] if row["way"] == BARE] == [1, 1]
    assert "runtime, 96×64" in printed
    found = written["soak"]
    assert found["frames"] >= 60  # the first pass is always finished
    assert (found["out_of_order"], found["dropped"], found["wrong_labels"]) == (0, 0, 0)
    assert found["rss_mb"][2] >= found["rss_mb"][0] > 0


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_rivals_compute_the_same(bundle, backend):
    pytest.importorskip(backend)
    spec, image = SPECS["rgb"], make_image()
    model = make_model(spec, WEIGHTS["rgb"])
    expected = load(bundle, "onnxruntime", 1, precision="fp32")(image).labels
    np.testing.assert_array_equal(session(backend, model, 1)(image[None])["labels"][0], expected)
    # This tiny graph normalizes behind its transposition, an exported one before.
    raw = msgspec.structs.replace(spec, mean=(0.0,) * 3, std=(1.0,) * 3)
    naive = naive_runtime(session(backend, naive_form(model), 1), raw)
    assert (naive(image) == expected).mean() > 0.999
    assert naive(np.repeat(image, 2, axis=0)).shape == (64, 48)


def test_other_bundles_are_refused(tmp_path):
    make_bundle(tmp_path / "sar", "sar")
    with pytest.raises(UserError, match="only segmentation of color images"):
        main([str(tmp_path / "sar"), *FAST])
    with pytest.raises(UserError, match="an arg-max"):
        naive_form(make_model(SPECS["sar"], WEIGHTS["sar"]))


@pytest.mark.parametrize("frame", ["96", "0x10", "axb"])
def test_frames_are_width_by_height(frame, capsys):
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        main(["bundle", "--frame", frame])
    assert "is not WIDTHxHEIGHT" in capsys.readouterr().err
