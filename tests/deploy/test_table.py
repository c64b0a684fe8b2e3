"""Tables on the terminal, and the words below tables of latency."""

from deploy.table import format_table, int8_notes, int8_notes_by_backend


def test_columns_are_aligned():
    assert format_table(("a", "bb"), [("long", "1"), ("x", "222")]).splitlines() == [
        "a      bb",
        "---------",
        "long    1",
        "x     222",
    ]


def test_int8_that_is_slower_is_said_in_words():
    measured = {
        ("edge-nano on onnxruntime", "fp32"): 12.5,
        ("edge-nano on onnxruntime", "int8"): 14.0,
        ("edge-nano on openvino", "fp32"): 9.0,
        ("edge-nano on openvino", "int8"): 5.0,
    }
    (note,) = int8_notes(measured)
    assert note.startswith(
        "INT8 is slower than fp32 here: edge-nano on onnxruntime 0.89× (14.00 ms against 12.50);"
    )
    assert "openvino" not in note


def test_nothing_is_said_where_int8_is_faster_equal_or_alone():
    assert int8_notes({("a", "fp32"): 2.0, ("a", "int8"): 1.0}) == []
    assert int8_notes({("a", "fp32"): 2.0, ("a", "int8"): 2.005}) == []
    assert int8_notes({("a", "int8"): 2.0, ("b", "fp32"): 1.0, ("b", "fp16"): 3.0}) == []
    assert int8_notes({}) == []


def test_several_are_listed_in_one_line():
    measured = {(name, precision): ms for name in "ab" for precision, ms in (("fp32", 1.0), ("int8", 2.0))}
    (note,) = int8_notes(measured)
    assert "a 0.50× (2.00 ms against 1.00); b 0.50×" in note


def forms(*times):
    keys = [(backend, kind) for backend in ("onnxruntime", "openvino") for kind in ("fp32", "int8")]
    return {("a", *key): ms for key, ms in zip(keys, times, strict=True) if ms}


def test_int8_that_wins_in_its_own_backend_and_loses_against_another_is_said():
    (note,) = int8_notes_by_backend(forms(8.0, 5.0, 4.0, 0.0))
    assert note.startswith(
        "INT8 is slower than fp32 here: a on onnxruntime against openvino 0.80× (5.00 ms against 4.00); the"
    )
    (note,) = int8_notes_by_backend(forms(8.0, 5.0, 4.0, 6.0))
    assert "a on openvino 0.67× (6.00 ms against 4.00); a on onnxruntime against openvino 0.80×" in note


def test_several_backends_say_nothing_where_the_fastest_int8_is_the_fastest_of_all():
    assert int8_notes_by_backend(forms(8.0, 3.0, 4.0, 0.0)) == []
    assert int8_notes_by_backend(forms(8.0, 7.0, 4.0, 3.0)) == []
    assert int8_notes_by_backend(forms(8.0, 0.0, 4.0, 0.0)) == []
    other = {("b", "openvino", "fp32"): 1.0}
    assert int8_notes_by_backend(forms(8.0, 5.0, 0.0, 0.0) | other) == []


def test_nothing_is_said_twice():
    (note,) = int8_notes_by_backend(forms(4.0, 5.0, 3.0, 0.0))
    assert "a on onnxruntime 0.80× (5.00 ms against 4.00); the backend" in note
