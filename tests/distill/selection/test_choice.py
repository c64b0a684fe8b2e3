"""The choice of a student is a function of a measurement."""

import re

import msgspec
import pytest

from deploy.errors import UserError
from deploy.files.atomic import write_json
from deploy.measure.records import Row, Shape
from distill.selection.choice import CHOICE, choose, read_choice, table, title, trained_words, words
from tests.deploy.measure.measurements import EDGE, SHAPE, measurement, row, timed


def chosen(found, max_ms, *, arch="edge-nano", options=None, shape=SHAPE, int8=True, source=""):
    return choose(found, arch, options or {}, shape, max_ms, int8, source)


@pytest.mark.parametrize(
    ("max_ms", "int8", "arch"),
    [
        (100, True, "edge-medium"),
        (3.6, True, "edge-medium"),
        (3.5, True, "edge-small"),
        (2.5, True, "edge-nano"),
        (100, False, "edge-medium"),
        (7, False, "edge-small"),
        (3.5, False, "edge-nano"),
    ],
)
def test_the_largest_within_the_budget_is_chosen(max_ms, int8, arch):
    choice = chosen(EDGE, max_ms, int8=int8)
    assert choice.arch == arch
    assert choice.ms <= max_ms
    assert choice.precision == ("int8" if int8 else "fp32")
    assert [one.candidate.arch for one in choice.rows] == ["edge-nano", "edge-small", "edge-medium"]


def test_the_faster_of_both_precisions_counts():
    slow = measurement(row("edge-nano", 0.25, timed(9.0), timed(4.0, "onnxruntime", "fp32")))
    choice = chosen(slow, 5)
    assert (choice.ms, choice.backend, choice.precision) == (4.0, "onnxruntime", "fp32")


def test_the_table_says_where_int8_is_slower():
    assert "INT8 is slower" not in table(chosen(EDGE, 5))
    slow = measurement(row("edge-nano", 0.25, timed(9.0), timed(4.0, "onnxruntime", "fp32")))
    note = "INT8 is slower than fp32 here: edge-nano 0.44× (9.00 ms against 4.00); "
    assert table(chosen(slow, 5)).splitlines()[-1].startswith(note)
    assert "INT8 is slower" not in table(chosen(slow, 5, int8=False))


def test_operations_decide_which_is_the_largest_even_if_it_is_faster():
    found = measurement(row("edge-small", 0.58, timed(1.0)), row("edge-nano", 0.25, timed(2.0)))
    assert chosen(found, 5).arch == "edge-small"


def test_a_budget_that_none_meets_names_the_fastest():
    message = re.escape(
        "--student.max-ms 1: no candidate is that fast on this machine; the fastest is edge-nano with 1.60 ms"
        " (openvino int8). Allow more, or"
    )
    with pytest.raises(UserError, match=message) as refusal:
        chosen(EDGE, 1)
    assert refusal.value.exit_code == 2
    with pytest.raises(UserError, match=r"fast in orin\.json; the fastest is edge-nano with 3\.30 ms"):
        chosen(EDGE, 1, int8=False, source="orin.json")


def test_candidates_of_other_families_and_options_do_not_count():
    found = measurement(
        *EDGE.rows,
        row("pspnet/resnet18", 9.0, timed(0.5)),
        row("edge/48", 2.0, timed(0.5), options={"detail": True}),
        row("edge/40", 1.5, timed(3.0)),
    )
    assert chosen(found, 3.5).arch == "edge/40"
    assert chosen(found, 3.5, options={"detail": True}).arch == "edge/48"
    assert chosen(found, 3.5, arch="pspnet/resnet50").arch == "pspnet/resnet18"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 240}, "240×320, 3 channels (uint8), 11 classes"),
        ({"channels": 4}, "320×320, 4 channels (uint8), 11 classes"),
        ({"outputs": 2}, "320×320, 3 channels (uint8), 2 classes"),
        ({"dtype": "float32"}, "320×320, 3 channels (float32), 11 classes"),
        ({"task": "grasp"}, "320×320, 3 channels (uint8), 11 maps (grasp)"),
    ],
)
def test_a_measurement_of_another_shape_is_refused_with_both_and_the_remedy(change, words):
    needed: Shape = msgspec.structs.replace(SHAPE, **change)
    message = re.escape(f"m.json: was measured at {SHAPE.text}, the run needs {words}; edgedistill students")
    with pytest.raises(UserError, match=message) as refusal:
        chosen(EDGE, 10, shape=needed, source="m.json")
    assert "edgedistill measure FOLDER" in str(refusal.value)


def test_a_measurement_without_the_family_is_refused_with_what_it_has():
    message = r"m\.json: has no candidate like unet:width=8, only edge-medium, edge-nano, edge-small; choose"
    with pytest.raises(UserError, match=message):
        chosen(EDGE, 10, arch="unet", options={"width": 8}, source="m.json")


def test_bundles_are_no_candidates():
    bundle = Row("student", SHAPE, (timed(1.0),))
    with pytest.raises(UserError, match=r"m\.json: has no candidates, only bundles"):
        chosen(measurement(bundle), 10, source="m.json")
    assert chosen(measurement(bundle, *EDGE.rows), 10).arch == "edge-medium"


def test_a_measurement_in_int8_alone_is_refused_for_a_run_without_int8():
    with pytest.raises(UserError, match=r"m\.json: has no candidate in fp32 or fp16; measure again"):
        chosen(measurement(row("edge-nano", 0.25, timed(1.0))), 10, int8=False, source="m.json")


def test_the_choice_is_told_in_one_line_and_in_a_table():
    choice = chosen(EDGE, 3, source="orin.json")
    assert words(choice) == (
        "student: edge-small, 2.60 ms by openvino int8, the largest of 3 candidates within 3 ms (measured in orin.json)"
    )
    assert "measured here" in words(chosen(EDGE, 3))
    lines = [line.split() for line in table(choice).splitlines()[2:]]
    assert [(line[0], line[2], line[3], line[4], line[-1]) for line in lines] == [
        ("edge-nano", "0.250", "3.30", "1.60", "within"),
        ("edge-small", "0.580", "6.50", "2.60", "chosen"),
        ("edge-medium", "1.000", "10.00", "3.60", "slow"),
    ]


def test_the_title_names_the_machine():
    real = msgspec.structs.replace(
        chosen(EDGE, 3),
        machine={
            "device": None,
            "cpu": "Some CPU",
            "architecture": "x86_64",
            "usable_cores": 2,
            "cores": 4,
            "cpu_flags": ["avx2"],
            "python": "3.12.1",
            "packages": {"onnxruntime": "1.30"},
        },
    )
    assert title(real) == (
        "The student is the largest within 3 ms, engine alone (Some CPU, 2 cores, avx2, Python 3.12.1,"
        " onnxruntime 1.30):"
    )


@pytest.mark.parametrize(("ms", "verdict"), [(2.9, "within"), (3.0, "within"), (3.1, "over")])
def test_the_trained_student_is_compared_with_the_budget(ms, verdict):
    choice = msgspec.structs.replace(chosen(EDGE, 3), trained=timed(ms))
    assert trained_words(choice) == f"{ms:.2f} ms by openvino int8, {verdict} the budget of 3 ms"


def test_the_record_of_a_run_survives_a_round_trip(tmp_path):
    choice = chosen(EDGE, 3)
    write_json(tmp_path / CHOICE, choice)
    assert read_choice(tmp_path / CHOICE) == choice
    (tmp_path / CHOICE).write_text("{}")
    with pytest.raises(UserError, match=r"student-choice\.json: cannot be read .*; choose another --out"):
        read_choice(tmp_path / CHOICE)
