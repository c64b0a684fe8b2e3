"""Documented signatures are those of the real types, where these are installed."""

import pytest

from tests.deploy.backends.tensorrt_gpu.documented import VERSIONS, documented_tensorrt
from tests.deploy.backends.tensorrt_gpu.trt_fakes import documented_signatures


@pytest.mark.parametrize(
    "kind", ["Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IProfiler"]
)
def test_tensorrt_11_is_as_documented(kind):
    """The lean runtime can be installed without a GPU."""
    real, documented = (getattr(one, kind) for one in (lean(), documented_tensorrt("11.4")))
    for name in vars(documented):
        if not name.startswith("_"):
            method, other = getattr(real, name), getattr(documented, name)
            if not isinstance(other, property):
                parameters = [
                    [list(signature.parameters) for signature in documented_signatures(one)]
                    for one in (method, other)
                ]
                assert parameters[0] == parameters[1], name


@pytest.mark.parametrize("kind", ["DataType", "TensorIOMode", "MemoryPoolType", "HardwareCompatibilityLevel"])
def test_enumerations(kind):
    real, documented = (getattr(one, kind) for one in (lean(), documented_tensorrt("11.4")))
    assert {name: int(value) for name, value in real.__members__.items()} == {
        one.name: int(one) for one in documented
    }


def lean():
    return pytest.importorskip("tensorrt_lean")


def test_what_versions_lack():
    old, new = map(documented_tensorrt, VERSIONS)
    assert not hasattr(old, "IRuntimeConfig")
    assert "SAME_COMPUTE_CAPABILITY" not in old.HardwareCompatibilityLevel.__members__
    assert "FP16" in old.BuilderFlag.__members__
    assert "FP16" not in new.BuilderFlag.__members__
