"""FP8 models and engines: made, judged, and refused where there is no FP8."""

import re
import shutil

import msgspec
import onnx
import pytest

from deploy import build_engine
from deploy.bundle.bundle_files import read_manifest, write_bundle
from deploy.bundle.engine_files import read_sidecar
from deploy.bundle.manifest import FP8, GOLDEN, INT8, INT8_CPU, MODEL, QUANTIZATION
from deploy.errors import UserError


def build(bundle, *arguments, backend="tensorrt-rtx", precision="fp8") -> int:
    return build_engine.main([str(bundle), "--backend", backend, "--precision", precision, *arguments])


def with_small_kernel(bundle):
    """The bundle with its convolution of 8×8 as a pooling and one of 1×1, which compute the same."""
    manifest, model = read_manifest(bundle), onnx.load(bundle / MODEL)
    (kernel,) = (tensor for tensor in model.graph.initializer if tensor.name == "kernel")
    sums = onnx.numpy_helper.to_array(kernel).sum(axis=(2, 3), keepdims=True)
    kernel.CopyFrom(onnx.numpy_helper.from_array(sums, "kernel"))
    (index,) = (i for i, node in enumerate(model.graph.node) if node.op_type == "Conv")
    convolution = model.graph.node[index]
    sides = convolution.attribute[0].ints
    pool = onnx.helper.make_node("AveragePool", ["normal"], ["cells"], kernel_shape=sides, strides=sides)
    convolution.input[0] = "cells"
    del convolution.attribute[:]
    model.graph.node.insert(index, pool)
    files = {MODEL: model.SerializeToString(), GOLDEN: (bundle / GOLDEN).read_bytes()}
    shutil.rmtree(bundle)
    write_bundle(
        bundle, msgspec.structs.replace(manifest, files={}, digest=""), files, precision={MODEL: "fp32"}
    )
    return bundle


class TestFp8:
    """For GPUs from compute capability 8.9 on, and convolutions with kernels of at most 5×5."""

    def test_is_made_judged_and_compiled_for_gpus_that_have_it(self, bundle, capsys):
        pytest.importorskip("tensorrt_rtx")
        assert build(with_small_kernel(bundle), "--max-drop", "0.05") == 0
        out = capsys.readouterr().out
        assert "fp8, min-max: tensorrt: mIoU" in out
        assert re.search(r"^fp8 .* passed", out, re.M)
        manifest = read_manifest(bundle)
        assert manifest.files[FP8].precision == "fp8"
        assert {"fp8 miou", "fp8 golden agreement"} <= set(manifest.metrics)
        (engine,) = (bundle / "engines").glob("tensorrt-rtx-fp8-*.engine")
        sidecar = read_sidecar(engine)
        assert sidecar.targets == ("sm89", "sm120", "sm121")
        assert sidecar.layers.fp8_convolutions == sidecar.layers.convolutions == 1

    def test_does_not_replace_int8(self, bundle):
        pytest.importorskip("tensorrt_rtx")
        build(with_small_kernel(bundle), backend="onnxruntime", precision="int8")
        before = {name: (bundle / name).read_bytes() for name in (INT8, INT8_CPU, QUANTIZATION)}
        build(bundle, "--max-drop", "0.05")
        assert {name: (bundle / name).read_bytes() for name in before} == before

    def test_a_network_without_layers_for_it_is_refused(self, bundle):
        pytest.importorskip("tensorrt_rtx")
        with pytest.raises(UserError, match=r"no layer that fp8 can compute .* kernels of at most 5×5"):
            build(bundle)

    @pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
    def test_is_refused_for_a_cpu(self, bundle, backend):
        with pytest.raises(
            UserError, match="--precision fp8: no CPU computes in it; give --backend tensorrt"
        ):
            build(bundle, backend=backend)

    def test_is_refused_for_an_older_gpu(self, bundle):
        pytest.importorskip("tensorrt_rtx")
        with pytest.raises(UserError, match=r"target sm86: has no fp8, which begins with sm89"):
            build(bundle, "--targets", "sm86")
