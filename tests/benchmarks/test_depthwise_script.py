"""benchmarks/depthwise.py on a small network."""

import json

import pytest

from benchmarks.depthwise import main
from deploy.errors import UserError


def test_both_kinds_of_gradients_are_timed(tmp_path, capsys):
    report = tmp_path / "report.json"
    options = ["--size", "32", "32", "--batch-size", "2", "--turns", "1", "--json", str(report)]
    assert main(["pspnet/mobilenetv3_small_050", *options]) == 0
    rows = json.loads(report.read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "bf16"]
    assert all(row["torchs"] > 0 and row["here"] > 0 and row["spread"] >= 1 for row in rows)
    assert "pspnet/mobilenetv3_small_050" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--batch-size", "--turns"])
def test_counts_that_cannot_be_timed_are_refused(option):
    with pytest.raises(UserError, match=option):
        main([option, "0"])
