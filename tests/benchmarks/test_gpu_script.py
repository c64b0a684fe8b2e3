"""benchmarks/gpu.py and gpu_check.sh: skipped for real without a GPU, and all of it on a GPU of numpy arrays."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import gpu, gpu_engine
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.backends.tensorrt_gpu import compatibility as trt_fit
from deploy.backends.tensorrt_gpu import cuda
from deploy.backends.tensorrt_gpu import engine as trt
from deploy.backends.tensorrt_gpu.builder import Built
from deploy.backends.tensorrt_gpu.trt_engine import TrtEngine
from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.engine_files import LayerSummary, write_engine
from deploy.bundle.manifest import FP16, INT8, INT8_CPU, MODEL
from deploy.errors import GateFailed, UserError
from deploy.evaluation.labeled_data import write_labeled
from deploy.files.atomic import sha256_file
from deploy.measure.energy import Meter
from deploy.signing.trust_store import trust
from tests.conftest import ROOT
from tests.deploy.backends.tensorrt_gpu.trt_fakes import ENGINE, TENSORS, FakeTensorRT, make_sidecar
from tests.deploy.measure.machines import make_jetson
from tests.deploy.tiny import make_bundle, make_image

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
SOURCES = {"fp32": MODEL, "fp16": FP16, "int8": INT8}


@pytest.fixture
def bundle(tmp_path):
    """As a run leaves it: every precision, and labeled images beside it. All files hold the same network."""
    folder = tmp_path / "bundle"
    manifest = make_bundle(folder)
    model, golden = (folder / MODEL).read_bytes(), (folder / "golden.npz").read_bytes()
    write_bundle(
        folder, manifest, dict.fromkeys([*SOURCES.values(), INT8_CPU], model) | {"golden.npz": golden}
    )
    engine = OrtEngine(model, threads=1)
    samples = [(f"image{seed}", make_image(seed=seed)) for seed in range(3)]
    labels = [engine.run(image[None])["labels"][0] for _, image in samples]
    valid = np.ones((32, 48), bool)
    write_labeled(
        tmp_path / "data" / "test",
        [(*pair, label, valid) for pair, label in zip(samples, labels, strict=True)],
    )
    return folder


@pytest.fixture
def machine(bundle, monkeypatch):
    """A machine with a GPU and TensorRT-RTX, both fake, and a compiler that takes no time."""
    real = pytest.importorskip("tensorrt_rtx")
    fake = FakeTensorRT(real, bundle / MODEL)
    monkeypatch.setattr(cuda, "PROVIDERS", {"fake": lambda index: fake.cuda})
    monkeypatch.setattr(trt, "import_tensorrt", lambda backend: fake.module)

    def build_engine(folder, options, *, progress):
        source = SOURCES[options.precision]
        sidecar = make_sidecar(
            source=source,
            source_sha256=read_manifest(folder).files[source].sha256,
            backend=options.backend,
            version=real.__version__,
            precision=options.precision,
            batch=options.batch,
            layers=LayerSummary(20, 19, 2, ("classifier",)),
        )
        fake.tensors = {
            name: (kind, (options.batch[0], *shape[1:]), way) for name, (kind, shape, way) in TENSORS.items()
        }
        path = write_engine(folder, f"{options.precision}-b{options.batch[0]}", ENGINE, sidecar)
        trust(sha256_file(path), path, "built")
        return Built(path, sidecar, False, path.with_suffix(".log"))

    monkeypatch.setattr(gpu_engine, "build_engine", build_engine)
    return fake


def run_gpu(bundle, *arguments):
    """The report of a run in this process."""
    report = bundle.parent / "gpu.json"
    counts = ["--runs", "5", "--warmup", "1", "--batch", "1,4", "--streams", "1,2", "--seconds", "0"]
    fast = [*counts, "--backend", "tensorrt-rtx", "--json", str(report)]
    try:
        gpu.main([str(bundle), *fast, *arguments])
    finally:
        content = json.loads(report.read_text()) if report.exists() else None
    return content


def test_whole_report(bundle, machine, capsys):
    report = run_gpu(bundle)
    assert report["gpu"]["name"] == "Fake GPU"
    assert report["machine"]["packages"]["numpy"]
    assert report["failures"] == []
    assert [(row["engine"], row["sidecar"]["batch"]) for row in report["engines"]] == [
        (f"tensorrt-rtx {p}", [batch] * 3) for p in ("fp32", "fp16", "int8") for batch in (1, 4)
    ]
    for row in report["engines"]:
        assert row["golden_agreement"] == 1
        assert row["threads_agree"] is True
        assert row["gpu_bytes"] > row["sidecar"]["batch"][0] * 32 * 48 * 3
        assert row["inspector"] == {"Layers": ["conv1"]}
        ways = [(one["batch"], one["copies"], one["cuda_graph"]) for one in row["timings"]]
        batch = row["sidecar"]["batch"][0]
        assert sorted(ways) == [(batch, c, g) for c in (False, True) for g in (False, True)]
        assert all(0 < one["p50"] <= one["p99"] for one in row["timings"])
        ways = [(one["batch"], one["streams"], one["cuda_graph"]) for one in row["throughput"]]
        assert sorted(ways) == [(batch, s, g) for s in (1, 2) for g in (False, True)]
        assert all(one["images_per_second"] > 0 for one in row["throughput"])
        assert row["profile"] == []
        assert row["no_throughput"] == ""
    assert [hop["name"] for hop in report["receipt"]["hops"]] == [
        "onnxruntime fp32",
        "tensorrt-rtx fp32",
        "tensorrt-rtx fp16",
        "onnxruntime int8",
        "tensorrt-rtx int8",
    ]
    assert all(hop["score"] == hop["agreement_first"] == 1 for hop in report["receipt"]["hops"])
    refusals = report["refusals"]
    assert len(refusals) == 7
    assert all("edgedistill build " in error and "\n" not in error for error in refusals.values())
    out = capsys.readouterr().out
    assert "19 of 20" in out
    assert "images/s" in out
    assert f"written to {bundle.parent / 'gpu.json'}" in out
    assert not machine.cuda.alive


def test_every_figure_has_its_energy(bundle, machine, tmp_path, capsys, monkeypatch):
    """On a Jetson of 5 W whose clocks are not locked, and reduced while an engine is timed."""
    root = make_jetson(tmp_path / "orin")
    monkeypatch.setattr(machine.cuda, "device", replace(machine.cuda.device, integrated=True))
    monkeypatch.setattr(gpu, "Meter", lambda device: Meter(device, root))
    events = root / "sys/class/hwmon/hwmon4/oc1_event_cnt"
    time = TrtEngine.time

    def hot(*arguments, **named):
        events.write_text(f"{int(events.read_text()) + 1}\n")
        return time(*arguments, **named)

    monkeypatch.setattr(TrtEngine, "time", hot)
    report = run_gpu(bundle, "--precision", "fp16", "--batch", "4")
    assert report["power"]["before"] == report["power"]["after"]
    assert (report["power"]["before"]["mode"], report["power"]["before"]["rails"]["VDD_IN"]) == ("2 (15W)", 5)
    (row,) = report["engines"]
    for one, runs in [(one, 5) for one in row["timings"]] + [(one, 5) for one in row["throughput"]]:
        assert one["energy"]["watts"] == pytest.approx(5)
        assert one["joules_per_frame"] == pytest.approx(5 * one["energy"]["seconds"] / (4 * runs))
        assert (one["energy"]["celsius"], one["energy"]["mhz"]) == (48.25, 612)
    out = capsys.readouterr().out
    assert "power mode 2 (15W), clocks not locked, VDD_IN 5.0 W" in out
    assert "sudo jetson_clocks" in out
    assert "clocks were reduced while measuring: over-current" in out


def test_where_nothing_measures_power(bundle, machine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("deploy.measure.nvml.LIBRARY", "libnot-here.so.1")
    monkeypatch.setattr(gpu, "Meter", lambda device: Meter(device, tmp_path))
    report = run_gpu(bundle, "--precision", "fp16", "--batch", "4")
    assert "is not installed" in report["power"]["why_not"]
    assert report["engines"][0]["timings"][0]["joules_per_frame"] is None
    assert "energy is not measured: libnot-here.so.1: is not installed" in capsys.readouterr().out


def test_slowest_layers(bundle, machine, capsys):
    (row,) = run_gpu(bundle, "--precision", "int8", "--batch", "4", "--profile")["engines"]
    assert [(one["name"], one["ms"], one["share"]) for one in row["profile"]] == [
        ("conv1 + relu", 0.75, 0.75),
        ("argmax", 0.25, 0.25),
    ]
    assert "tensorrt-rtx int8, batch 4: slowest of 2 layers" in capsys.readouterr().out


def test_too_many_streams(bundle, machine, capsys, monkeypatch):
    throughput = TrtEngine.throughput

    def short(engine, batch, runs, *, streams):
        if streams > 1:
            raise UserError("there is no memory for 2 streams")
        return throughput(engine, batch, runs, streams=streams)

    monkeypatch.setattr(TrtEngine, "throughput", short)
    (row,) = run_gpu(bundle, "--precision", "int8", "--batch", "4")["engines"]
    assert {one["streams"] for one in row["throughput"]} == {1}
    assert row["no_throughput"] == "there is no memory for 2 streams"
    assert len(row["timings"]) == 4
    assert "fewer streams: there is no memory for 2 streams" in capsys.readouterr().out


def test_without_labeled_images(bundle, machine, capsys):
    shutil.rmtree(bundle.parent / "data")
    report = run_gpu(bundle, "--precision", "fp16")
    assert report["receipt"] is None
    assert "accuracy is not measured" in capsys.readouterr().out


def test_a_precision_that_cannot_be_built(bundle, machine, monkeypatch):
    build = gpu_engine.build_engine

    def refuse(folder, options, **others):
        if options.precision == "fp16":
            raise UserError("the bundle has no fp16 model")
        return build(folder, options, **others)

    monkeypatch.setattr(gpu_engine, "build_engine", refuse)
    with pytest.raises(GateFailed, match="the bundle has no fp16 model"):
        run_gpu(bundle)
    report = json.loads((bundle.parent / "gpu.json").read_text())
    assert {row["engine"] for row in report["engines"]} == {"tensorrt-rtx fp32", "tensorrt-rtx int8"}
    assert set(report["failures"]) == {"the bundle has no fp16 model"}


def test_a_gpu_that_computes_something_else(bundle, machine):
    network = machine.network
    machine.network = lambda images: {name: value[..., ::-1] for name, value in network(images).items()}
    with pytest.raises(GateFailed, match=r"hop onnxruntime fp32 → tensorrt-rtx fp32: label agreement"):
        run_gpu(bundle, "--precision", "fp32")


def test_what_was_measured_is_written_before_anything_can_go_wrong(bundle, machine, monkeypatch):
    def crash(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(gpu, "_receipt", crash)
    with pytest.raises(RuntimeError):
        run_gpu(bundle, "--precision", "fp32,int8")
    report = json.loads((bundle.parent / "gpu.json").read_text())
    assert {row["engine"] for row in report["engines"]} == {"tensorrt-rtx fp32", "tensorrt-rtx int8"}


def test_an_engine_that_should_have_been_refused(bundle, machine, monkeypatch):
    monkeypatch.setattr(trt_fit, "fits_version", lambda sidecar, version: True)
    with pytest.raises(GateFailed, match=r"^another version's engine was opened$"):
        run_gpu(bundle, "--precision", "fp32")


def test_a_provider_without_graphs(bundle, machine, monkeypatch):
    def refuse(*_):
        raise UserError("pycuda offers no CUDA graphs")

    monkeypatch.setattr(machine.cuda, "capture", refuse)
    monkeypatch.delattr(machine.module, "CudaGraphStrategy")  # as in TensorRT, which leaves capturing to us
    [row] = run_gpu(bundle, "--precision", "int8", "--batch", "2")["engines"]
    assert row["no_graph"] == "pycuda offers no CUDA graphs"
    assert not any(one["cuda_graph"] for one in row["timings"])


def test_no_tensorrt(bundle, machine, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert run_gpu(bundle) is None
    assert capsys.readouterr().out.startswith("SKIPPED: tensorrt-rtx not installed: pip install")


@pytest.mark.parametrize(
    "wrong",
    [
        *[("--runs", "0"), ("--warmup", "-1"), ("--batch", "0"), ("--batch", "1,many")],
        *[("--streams", "0"), ("--seconds", "-1"), ("--seconds", "nan")],
    ],
)
def test_impossible_counts(wrong):
    with pytest.raises(UserError, match=r"give at least --runs 1|give numbers from 1, such as 1,8"):
        gpu.main(["bundle", *wrong])


def test_skipped_without_a_gpu(tmp_path):
    report = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", str(tmp_path), "--json", str(report)],
        cwd=ROOT,
        env=os.environ | NO_GPU,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SKIPPED: no usable NVIDIA GPU: ")
    assert done.stdout.count("\n") == 1
    assert not report.exists()
