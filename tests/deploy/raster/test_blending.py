"""Labels and probabilities of blended scores are decided as those of single images."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.loading import load
from deploy.raster import Options
from tests.deploy.raster.networks import predict
from tests.deploy.tiny import make_bundle, make_image


@pytest.mark.parametrize(("threshold", "temperature"), [(0.2, None), (None, 5.0), (0.35, 3.0), (None, None)])
def test_decides_as_a_call_of_the_model_does(tmp_path, threshold, temperature):
    make_bundle(tmp_path / "bundle", "sar", resize="tile")
    loaded = load(tmp_path / "bundle", "onnxruntime", threads=1)
    model = replace(loaded, threshold=threshold, temperature=temperature)
    image = make_image("sar", size=(loaded.input.height, loaded.input.width))  # one tile
    sink, result = predict(image, Options(probabilities="float32"), model), model(image)
    np.testing.assert_array_equal(sink.labels, result.labels)
    np.testing.assert_allclose(sink.probabilities, result.probabilities, atol=1e-6)
    if threshold is not None:
        plain = replace(loaded, temperature=temperature)(image)
        assert (plain.labels != result.labels).any(), "the threshold matters here"
