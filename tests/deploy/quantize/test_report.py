"""The report of a quantization, as JSON, text and picture."""

from xml.etree import ElementTree

import msgspec
import pytest

from deploy.evaluation.receipt import Budget
from deploy.quantize.report import Figures, Report, Sensitivity, sensitivity_svg, sensitivity_table


@pytest.fixture
def report():
    return Report(
        metric="mIoU",
        images=64,
        budget=Budget(0.005, 0.98),
        fp32=Figures(0.61, 1.0),
        calibrators={"min-max": Figures(0.5, 0.9), "mse": Figures(0.58, 0.97)},
        calibrator="mse",
        int8=Figures(0.607, 0.985),
        layers=13,
        all_int8=Figures(0.58, 0.97),
        float_layers=("stem<1>",),
        ranges={"image": 2.5},
        sensitivity=(
            Sensitivity("stem<1>", ("stem<1>",), Figures(0.607, 0.986)),
            Sensitivity("head & tail", ("head & tail",), Figures(0.575, 0.969)),
        ),
    )


def test_the_record_survives_json(report):
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_table_ranks_and_compares(report):
    lines = sensitivity_table(report).splitlines()
    assert lines[0].split() == ["in", "float", "mIoU", "%", "gain", "agreement", "%", "gain"]
    assert lines[2].split() == ["stem<1>", "60.70", "+2.70", "98.600", "+1.600"]
    assert lines[3].split() == ["head", "&", "tail", "57.50", "-0.50", "96.900", "-0.100"]
    assert lines[4].split() == ["(all", "in", "INT8)", "58.00", "97.000"]
    assert lines[5].split() == ["(all", "in", "float)", "61.00", "100.000"]


def test_a_smaller_error_is_a_gain_in_table_and_picture(report):
    rows = (Sensitivity("stem", ("stem",), Figures(-0.006, 0.99)),)
    error = msgspec.structs.replace(
        report,
        metric="RMSE",
        unit="mm",
        factor=-1000.0,
        all_int8=Figures(-0.007, 0.97),
        sensitivity=rows,
    )
    assert sensitivity_table(error).splitlines()[2].split()[:3] == ["stem", "6.00", "+1.00"]
    assert ">+1.00<" in sensitivity_svg(error)


def test_the_picture_is_well_formed_and_to_scale(report):
    root = ElementTree.fromstring(sensitivity_svg(report))
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert {"stem<1>", "head & tail", "+2.70", "-0.50"} <= set(texts)
    ground, gain, loss = root.iter(f"{space}rect")
    assert ground.get("fill") == "#fff"
    assert gain.get("fill") != loss.get("fill")
    assert float(gain.get("width")) == pytest.approx(5.4 * float(loss.get("width")), rel=0.01)
    assert float(loss.get("x")) + float(loss.get("width")) == pytest.approx(float(gain.get("x")), abs=0.2)
    right = max(float(bar.get("x")) + float(bar.get("width")) for bar in (gain, loss))
    assert right < int(root.get("width"))


def test_a_picture_without_differences_is_drawn_all_the_same(report):
    same = tuple(msgspec.structs.replace(row, figures=report.all_int8) for row in report.sensitivity)
    ElementTree.fromstring(sensitivity_svg(msgspec.structs.replace(report, sensitivity=same)))
    ElementTree.fromstring(sensitivity_svg(msgspec.structs.replace(report, sensitivity=())))


def test_control_characters_of_a_name_leave_the_picture_well_formed(report):
    rows = (Sensitivity("a\x07\nb", ("a",), Figures(0.6, 0.98)),)
    root = ElementTree.fromstring(sensitivity_svg(msgspec.structs.replace(report, sensitivity=rows)))
    assert "a��b" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
