"""A stand-in for full TensorRT's builder, of any version; real ones need a GPU."""

from types import SimpleNamespace
from unittest.mock import DEFAULT, create_autospec

from deploy.backends.tensorrt_gpu.cuda_interface import Device
from deploy.backends.tensorrt_gpu.log import logger
from tests.deploy.backends.tensorrt_gpu.documented import documented_tensorrt
from tests.deploy.backends.tensorrt_gpu.test_layer_report import FULL_10
from tests.deploy.backends.tensorrt_gpu.trt_fakes import checked

ORIN = Device("Orin", "8.7", 8 << 30, "12.6", "12.6", "fake")


class Progress:
    """`IProgressMonitor` as Python sees it: a class to inherit from."""


class Log:
    """The same for `ILogger`."""


def spec(kind, **attributes):
    """A stand-in with the attributes of the type, which refuses all others and calls that do not fit the signatures.

    Args:
        kind: a documented type.
        attributes: values of properties, and what methods do; others return a mock.
    """
    mock = create_autospec(kind, instance=True, spec_set=True)
    for name, method in vars(kind).items():
        if not name.startswith("_") and callable(method) and not isinstance(method, type):
            does = attributes.pop(name, lambda *_, **__: DEFAULT)
            getattr(mock, name).side_effect = checked(method, does)
    for name, value in attributes.items():
        setattr(mock, name, value)
    return mock


class Fake(SimpleNamespace):
    """A module `tensorrt` of some version. `last` holds the objects of its last build."""

    def __init__(self, version: str, *, cores: int = 0, batch: int = -1, build=None, cache_fits=True):
        self.real = documented_tensorrt("10.3" if version.startswith("10.") else "11.4")
        super().__init__(**{name: value for name, value in vars(self.real).items() if name[0] != "_"})
        self.__version__ = version
        self.ILogger = type("ILogger", (Log,), {})
        self.IProgressMonitor, self.Builder, self.OnnxParser = Progress, self._builder, self._parser
        self.cores, self.batch, self.build, self.cache_fits = cores, batch, build or self._layers, cache_fits
        self.not_on_dla: list[str] = []
        """Layers after the convolution, by type, that a DLA refuses."""
        self.last = SimpleNamespace()

    def _builder(self, log):
        image = SimpleNamespace(name="image", shape=(self.batch, 32, 48, 3))
        outputs = [SimpleNamespace(name="labels"), SimpleNamespace(name="logits")]
        conv = SimpleNamespace(
            type=SimpleNamespace(name="CONVOLUTION"), metadata="[ONNX Layer: /net/conv0/Conv]"
        )
        layers = [conv, *(self._layer(kind) for kind in self.not_on_dla)]
        network = spec(
            self.real.INetworkDefinition,
            num_layers=len(layers),
            num_inputs=1,
            num_outputs=2,
            get_layer=layers.__getitem__,
            get_input=lambda index: image,
            get_output=outputs.__getitem__,
        )
        caches = [
            SimpleNamespace(serialize=lambda: b"measured"),
            SimpleNamespace(serialize=lambda: b"afresh"),
        ]
        config = spec(
            self.real.IBuilderConfig,
            create_timing_cache=lambda data: caches[0] if data else caches[1],
            set_timing_cache=lambda cache, ignore: self.cache_fits or cache is caches[1],
            get_timing_cache=lambda: config.set_timing_cache.call_args.args[0],
            can_run_on_DLA=lambda layer: layer is conv,
        )
        profile = spec(self.real.IOptimizationProfile)
        builder = spec(
            self.real.Builder,
            num_DLA_cores=self.cores,
            create_network=lambda flags: network,
            create_builder_config=lambda: config,
            build_serialized_network=lambda *_: self.build(),
            create_optimization_profile=lambda: profile,
        )
        self.last = SimpleNamespace(
            builder=builder, network=network, config=config, image=image, profile=profile
        )
        return builder

    @staticmethod
    def _layer(kind):
        named = "" if kind == "SHUFFLE" else f"[ONNX Layer: node_{kind.lower()}]"
        return SimpleNamespace(type=SimpleNamespace(name=kind), metadata=named, name=f"unnamed {kind}")

    def _parser(self, network, log):
        return spec(self.real.OnnxParser, parse=lambda model: True)

    def _layers(self):
        self.say(4, FULL_10)
        return b"an engine"

    def say(self, severity, text):
        logger(self).log(severity, text)
