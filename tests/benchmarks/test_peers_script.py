"""`benchmarks/peers.py`: networks of this package and of others, exported once, timed in turns, compared."""

import json

import pytest
import torch

from benchmarks.peer_networks import PEERS, Peer, build_peer, missing_peers
from benchmarks.peers import PEAK, REFERENCE, cost_table, latency_table, main, ratios
from benchmarks.peers_bundles import read_index
from benchmarks.peers_timing import Row
from deploy.errors import UserError

LRASPP = "torchvision LR-ASPP-MobileNetV3-L"
INSTALLED = [name for name in PEERS if name not in missing_peers()]


def row(name, ms, macs=10**9):
    sizes = {"fp32": 4, "int8": 1}
    return Row(name, 10**6, macs, sizes, ms, ms, {"int8": 0.5}, {"int8": 10**8})


@pytest.mark.parametrize("name", INSTALLED)
def test_peers_output_scores_at_their_own_stride(name):
    network = build_peer(name, 5).eval()
    with torch.no_grad():
        output = network(torch.zeros(1, 3, 64, 96))
    assert output.aux is None
    _, classes, height, width = output.logits.shape
    stride = 64 // height
    assert (classes, height * stride, width * stride) == (5, 64, 96)
    assert stride in (1, 4, 8)


@pytest.mark.parametrize("name", INSTALLED)
def test_peers_train(name):
    output = build_peer(name, 5).train()(torch.randn(2, 3, 64, 64))
    output.logits.mean().backward()
    assert torch.isfinite(output.logits).all()


def test_missing_packages_come_with_their_command():
    absent = Peer("no_such_package", "no-such-package", torch.nn.Conv2d)
    present = Peer("torch", "torch", torch.nn.Conv2d)
    assert missing_peers({"a": absent, "b": present}) == {"a": "pip install no-such-package"}


def test_mistakes_in_names(monkeypatch):
    with pytest.raises(UserError, match="unknown peer 'U-Net'"):
        build_peer("U-Net", 2)
    monkeypatch.setitem(PEERS, REFERENCE, Peer("no_such_package", "ultralytics", torch.nn.Conv2d))
    with pytest.raises(UserError, match=r"not installed: pip install ultralytics"):
        build_peer(REFERENCE, 2)


def test_export_then_time_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PEERS, REFERENCE, Peer("no_such_package", "ultralytics", torch.nn.Conv2d))
    folder, report = str(tmp_path / "peers"), tmp_path / "peers.json"
    main(["edge/4", "--size", "64", "--classes", "3", "--folder", folder, "--only-export"])
    assert "ms" not in capsys.readouterr().out
    common = ["--again", "--folder", folder, "--rounds", "1", "--no-cold"]
    main([*common, "--json", str(report)])
    written = json.loads(report.read_text())
    assert (written["size"], written["classes"], written["alone"]) == (64, 3, False)
    assert [one["name"] for one in written["rows"]] == [PEAK, "edge/4"]
    edge = written["rows"][1]
    assert {"onnxruntime fp32", "onnxruntime int8"} <= set(edge["ms"])
    assert all(0 < ms <= edge["p90"][form] for form, ms in edge["ms"].items())
    assert edge["bytes"]["int8"] < edge["bytes"]["fp32"]
    assert written["peak"]["fp32"] > 0
    assert written["missing"][REFERENCE] == "pip install ultralytics"
    assert f"{REFERENCE}: not measured, needs pip install ultralytics" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no edge/5; run without --again"):
        main(["edge/5", *common])
    for asked, found in ((["--size", "320"], 64), (["--classes", "11"], 3), (["--alone"], False)):
        with pytest.raises(
            UserError, match=f"{' '.join(asked)}: the bundles in .* have {found}; run without"
        ):
            main([*common, *asked])
    main([*common, "--rounds", "3", "--threads", "1", "--quantile", "0", "--json", str(report)])
    fastest = json.loads(report.read_text())
    assert (fastest["threads"], fastest["quantile"], written["threads"]) == (1, 0, None)
    assert all(ms < fastest["rows"][1]["p90"][form] for form, ms in fastest["rows"][1]["ms"].items())
    for mistake in (["--threads", "0"], ["--quantile", "1.5"], ["--rounds", "0"]):
        with pytest.raises(UserError, match=f"{mistake[0]} {mistake[1]}: must be"):
            main([*common, *mistake])


def test_networks_alone_predict_at_their_own_stride(tmp_path):
    options = ["--size", "64", "--classes", "3", "--alone", "--rounds", "1"]
    main(["edge/4", *options, "--folder", str(tmp_path / "peers"), "--json", str(tmp_path / "peers.json")])
    written = json.loads((tmp_path / "peers.json").read_text())
    assert written["alone"]
    assert written["rows"][1]["first_result_s"] == {}


@pytest.mark.slow
def test_fresh_processes(tmp_path):
    main(
        [
            "edge/4",
            "--size",
            "64",
            "--rounds",
            "1",
            "--folder",
            str(tmp_path),
            "--json",
            str(tmp_path / "j.json"),
        ]
    )
    _, edge = json.loads((tmp_path / "j.json").read_text())["rows"]
    assert 0 < edge["first_result_s"]["int8"] < 60
    assert edge["peak_rss_bytes"]["fp32"] > 10**7


def test_a_folder_without_index(tmp_path):
    with pytest.raises(UserError, match=r"networks.json: cannot be read"):
        read_index(tmp_path)


def test_ratios_compare_the_faster_backends():
    rows = [
        row("edge-nano", {"a fp32": 4.0, "b fp32": 3.0, "a int8": 1.0, "b int8": 2.0}),
        row(REFERENCE, {"a fp32": 6.0, "b fp32": 9.0, "a int8": 8.0, "b int8": 10.0}),
    ]
    assert ratios(rows) == {"edge-nano": {"any": 1 / 6, "fp32": 0.5, "int8": 0.125}}
    assert ratios(rows[:1]) == {}
    assert "0.12" in latency_table(rows, {})
    slower = "INT8 is slower than fp32 here: ultralytics YOLO26n-sem on a 0.75× (8.00 ms against 6.00); ultralytics"
    assert slower in latency_table(rows, {})
    assert "pip install it" in latency_table(rows, {"x": "pip install it"})


def test_shares_are_relative_to_the_highest_rate_of_the_run():
    rows = [
        row(PEAK, {"a fp32": 10.0, "a int8": 5.0}, macs=10**9),
        row("edge-nano", {"a fp32": 10.0, "a int8": 5.0}, macs=3 * 10**8),
    ]
    lines = cost_table(rows).splitlines()
    assert lines[2].split()[3] == "100"
    assert lines[3].split()[1] == "30"
    assert lines[-1] == "peak of this machine in this run: fp32 100 GMAC/s, int8 200 GMAC/s"
