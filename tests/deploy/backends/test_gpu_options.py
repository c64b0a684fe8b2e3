"""Options of a GPU: their ranges, and that no backend ignores them."""

import pytest

import deploy
from deploy.backends.gpu_options import GpuOptions
from deploy.errors import UserError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": -1}, "device -1: GPUs are numbered from 0"),
        ({"max_contexts": 0}, "max_contexts 0: give at least 1"),
    ],
)
def test_ranges(bundle, wrong, message):
    with pytest.raises(UserError, match=message):
        GpuOptions(**wrong)
    with pytest.raises(UserError, match=message):
        deploy.load(bundle, **wrong)


def test_what_was_given():
    assert GpuOptions().given() == []
    assert GpuOptions(device=1, cuda_graph=True).given() == [
        "device",
        "cuda_graph",
    ]


@pytest.mark.parametrize("option", [{"device": 1}, {"cuda_graph": True}, {"trust_engines": True}])
def test_a_cpu_does_not_ignore_them(bundle, option):
    with pytest.raises(UserError, match=f"{next(iter(option))}: is for TensorRT, not for onnxruntime"):
        deploy.load(bundle, "onnxruntime", **option)
    assert deploy.load(bundle, **option).engine.name.startswith(("onnxruntime", "openvino"))  # auto


def test_signatures_are_no_option_of_a_cpu(tmp_path, bundle):
    pytest.importorskip("cryptography")
    from deploy.signing.bundle import sign_bundle
    from deploy.signing.keys import read_private
    from tests.deploy.signing.signed import make_key

    key = make_key(tmp_path, "maker")
    sign_bundle(bundle, read_private(key.private))
    assert deploy.load(bundle, "onnxruntime", trusted_keys=[key.public]).engine.name == "onnxruntime fp32"
