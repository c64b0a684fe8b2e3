"""Collect the distributions of a model's activations over the valid pixels of calibration images."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import onnx

from deploy.backends.onnxruntime_cpu import import_onnxruntime
from deploy.errors import UserError
from deploy.heartbeat import counted
from deploy.quantize.calibrators import BINS, Histogram, count
from deploy.quantize.graph import load

CalibrationSet = Iterable[tuple[np.ndarray, np.ndarray]]
"""Network inputs of one image each with a batch axis, and bool H×W at the size of the network: pixels with data.
Iterated more than once."""

Activations = Callable[[np.ndarray], dict[str, np.ndarray]]


def collect(model: bytes, tensors: Sequence[str], calibration: CalibrationSet) -> dict[str, Histogram]:
    """Collect the distribution of tensors over the calibration set.

    Runs the set twice, image by image: for the largest magnitudes, which define the bins, and for the counts. Memory
    holds the activations of one image at a time. Of a map N×C×h×w only cells over a valid pixel are counted; of a
    vector, all values. Images without a valid pixel are skipped.

    Args:
        model: bytes of an ONNX file.
        tensors: names of float tensors in it.
        calibration: see `CalibrationSet`.

    Returns:
        A histogram for each tensor, by name.

    Raises:
        UserError: a set without a valid pixel, or an activation that is NaN or infinite.
    """
    activations = _instrumented(model, tensors)
    largest = dict.fromkeys(tensors, 0.0)
    images = set()
    for index, name, values in _valid_values(activations, calibration):
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise UserError(
                f"tensor {name} is NaN or infinite for calibration image {index + 1} of the set;"
                " check the image and the training"
            )
        largest[name] = max(largest[name], -low, high)
        images.add(index)
    if not images:
        raise UserError(
            "the calibration set has no image with a valid pixel; give images from the training split"
        )
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    zeros = dict.fromkeys(tensors, 0)
    for _, name, values in _valid_values(activations, calibration):
        magnitudes = np.abs(values[values != 0])
        zeros[name] += values.size - magnitudes.size
        if magnitudes.size:
            counts[name] += count(magnitudes, largest[name])
    return {name: Histogram(counts[name], zeros[name], largest[name], len(images)) for name in tensors}


def cells(valid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The cells of a feature map of `size` (h, w) that lie over a valid pixel of the mask H×W; bool h×w."""
    rows, columns = (np.arange(n) * pixels // n for n, pixels in zip(size, valid.shape, strict=True))
    return np.logical_or.reduceat(np.logical_or.reduceat(valid, rows, axis=0), columns, axis=1)


def _valid_values(
    activations: Activations, calibration: CalibrationSet
) -> Iterator[tuple[int, str, np.ndarray]]:
    """For every tensor of every image: index of the image in the set, name of the tensor, values at valid pixels."""
    for index, (image, valid) in enumerate(counted(calibration)):
        if not valid.any():
            continue
        masks: dict[tuple[int, int], np.ndarray] = {}
        for name, values in activations(image).items():
            if values.ndim == 4 and min(values.shape[2:]) > 1:
                size = values.shape[2:]
                if size not in masks:
                    masks[size] = cells(valid, size)
                if not masks[size].all():
                    values = values[:, :, masks[size]]
            yield index, name, values


def _instrumented(model: bytes, tensors: Sequence[str]) -> Activations:
    """A function from a network input to the named tensors, run by ONNX Runtime on the CPU."""
    proto = load(model)
    if len(proto.graph.input) != 1:
        raise UserError(f"the model has {len(proto.graph.input)} inputs; it needs exactly one, the image")
    (image,) = proto.graph.input
    present = {output.name for output in proto.graph.output}
    computed = [name for name in tensors if name != image.name]
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in computed
        if name not in present
    )
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hides its warnings about output shapes, which we leave open on purpose
    instrumented, providers = proto.SerializeToString(), ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(instrumented, options, providers=providers)
    except Exception as error:  # its errors have no common public base
        reason = str(error).splitlines()[0]
        raise UserError(f"ONNX Runtime cannot load the model ({reason}); export it again") from error

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        found = dict(zip(computed, session.run(computed, {image.name: batch}), strict=True))
        return {name: np.asarray(found.get(name, batch)) for name in tensors}

    return run
