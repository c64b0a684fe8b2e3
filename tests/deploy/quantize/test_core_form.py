"""The core of a network, and what the runtime adds to it: together the whole network."""

import msgspec
import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto

from deploy.backends.core import completed, normalized
from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.errors import UserError
from deploy.inference.preprocess import to_network
from deploy.quantize.core_form import core_form, cut
from deploy.quantize.half import to_fp16
from tests.deploy.quantize.cores import core_logits
from tests.deploy.tiny import SPECS, WEIGHTS, make_image, make_model


def batch_of(kind, count=3):
    return to_network(np.stack([make_image(kind, seed) for seed in range(count)]), SPECS[kind])


@pytest.mark.parametrize("kind", ["rgb", "sar"])
def test_labels_are_those_of_the_whole_network(kind):
    spec, batch = SPECS[kind], batch_of(kind)
    model = make_model(spec, WEIGHTS[kind])
    whole = OrtEngine(model, threads=1, optimize=False).run(batch)
    outputs = completed(core_logits(cut(model, spec, 3), normalized(batch, spec)), spec)
    assert_array_equal(outputs["labels"], whole["labels"])
    np.testing.assert_allclose(outputs["logits"], whole["logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("convert", [bytes, to_fp16])
def test_the_core_is_half_precision_throughout(convert):
    spec, batch = SPECS["rgb"], batch_of("rgb")
    model = make_model(spec, WEIGHTS["rgb"])
    core = core_form(convert(model), spec, 3)
    graph = onnx.load_model_from_string(core).graph
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT16}
    ends = [(one.name, one.type.tensor_type.elem_type) for one in (*graph.input, *graph.output)]
    assert ends == [("image", TensorProto.FLOAT16), ("logits", TensorProto.FLOAT16)]
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [3, 3, 32, 48]
    logits = core_logits(core, normalized(batch, spec).astype(np.float16)).astype(np.float32)
    whole = OrtEngine(model, threads=1).run(batch)
    np.testing.assert_allclose(logits, whole["logits"], atol=5e-3)


def test_another_normalization_than_the_manifests_is_refused():
    model = make_model(SPECS["rgb"], WEIGHTS["rgb"])
    other = msgspec.structs.replace(SPECS["rgb"], mean=(1.0, 2.0, 3.0))
    with pytest.raises(
        UserError, match=r"does not begin with the manifest's normalization \(Sub, Mul not found\)"
    ):
        cut(model, other, 1)


def test_batches_of_another_type_or_size_are_refused():
    for batch in (batch_of("rgb").astype(np.float32), batch_of("rgb")[:, :5], batch_of("rgb")[:0]):
        with pytest.raises(UserError, match=r"the network takes uint8 N×32×48×3, got "):
            normalized(batch, SPECS["rgb"])
