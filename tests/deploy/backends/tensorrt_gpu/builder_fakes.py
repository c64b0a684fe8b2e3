"""A stand-in for full TensorRT's builder, of any version; real ones need a GPU."""

from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest

from deploy.backends.tensorrt_gpu.cuda_interface import Device
from deploy.backends.tensorrt_gpu.log import logger
from tests.deploy.backends.tensorrt_gpu.test_layer_report import FULL_10

rtx = pytest.importorskip("tensorrt_rtx")

ORIN = Device("Orin", "8.7", 8 << 30, "12.6", "12.6", "fake")


class Progress:
    """`IProgressMonitor` as Python sees it: a class to inherit from."""


class Log:
    """The same for `ILogger`."""


def spec(kind, **attributes):
    """A stand-in with the attributes of the type; it refuses all others."""
    mock = create_autospec(kind, instance=True, spec_set=True)
    for name, value in attributes.items():
        setattr(mock, name, value)
    return mock


class Fake(SimpleNamespace):
    """A module `tensorrt` of some version. `last` holds the objects of its last build."""

    def __init__(self, version: str, *, cores: int = 0, batch: int = -1, build=None, cache_fits=True):
        super().__init__(
            __version__=version,
            ILogger=type("ILogger", (Log,), {}),
            IProgressMonitor=Progress,
            Builder=self._builder,
            OnnxParser=self._parser,
            NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
            ProfilingVerbosity=rtx.ProfilingVerbosity,
            MemoryPoolType=rtx.MemoryPoolType,
            HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere", SAME_COMPUTE_CAPABILITY="same"),
            BuilderFlag=SimpleNamespace(VERSION_COMPATIBLE="version", GPU_FALLBACK="fallback"),
            DeviceType=SimpleNamespace(DLA="dla"),
        )
        self.cores, self.batch, self.build, self.cache_fits = cores, batch, build or self._layers, cache_fits
        self.last = SimpleNamespace()

    def _builder(self, log):
        image = SimpleNamespace(name="image", shape=(self.batch, 32, 48, 3))
        outputs = [SimpleNamespace(name="labels"), SimpleNamespace(name="logits")]
        conv = SimpleNamespace(
            type=SimpleNamespace(name="CONVOLUTION"), metadata="[ONNX Layer: /net/conv0/Conv]"
        )
        network = spec(rtx.INetworkDefinition, num_layers=1, num_inputs=1, num_outputs=2)
        network.get_layer.return_value = conv
        network.get_input.return_value = image
        network.get_output.side_effect = outputs.__getitem__
        config = spec(rtx.IBuilderConfig)
        caches = [
            SimpleNamespace(serialize=lambda: b"measured"),
            SimpleNamespace(serialize=lambda: b"afresh"),
        ]
        config.create_timing_cache.side_effect = lambda data: caches[0] if data else caches[1]
        config.set_timing_cache.side_effect = lambda cache, ignore: self.cache_fits or cache is caches[1]
        config.get_timing_cache.side_effect = lambda: config.set_timing_cache.call_args.args[0]
        builder = spec(rtx.Builder, num_DLA_cores=self.cores)
        builder.create_network.return_value = network
        builder.create_builder_config.return_value = config
        builder.build_serialized_network.side_effect = lambda *_: self.build()
        profile = builder.create_optimization_profile.return_value = spec(rtx.IOptimizationProfile)
        self.last = SimpleNamespace(
            builder=builder, network=network, config=config, image=image, profile=profile
        )
        return builder

    def _parser(self, network, log):
        parser = spec(rtx.OnnxParser)
        parser.parse.return_value = True
        return parser

    def _layers(self):
        self.say(4, FULL_10)
        return b"an engine"

    def say(self, severity, text):
        logger(self).log(severity, text)
