"""How the activations of a model are distributed over calibration images, where these carry data."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import onnx
import onnxruntime

from deploy.errors import UserError
from deploy.quantize.calibrators import BINS, Histogram, count
from deploy.quantize.graph import load

CalibrationSet = Iterable[tuple[np.ndarray, np.ndarray]]
"""Network inputs of one image each with a batch axis, and bool H×W at the size of the network: which pixels carry
data. Iterated more than once."""

Activations = Callable[[np.ndarray], dict[str, np.ndarray]]


def collect(model: bytes, tensors: Sequence[str], calibration: CalibrationSet) -> dict[str, Histogram]:
    """The distribution of each of the float `tensors` over the calibration set.

    The set is run twice, image by image: for the largest magnitudes and, with the bins that they define, for the
    counts. Never more is held than the activations of one image. Of a map N×C×h×w only the cells count that see a
    valid pixel; of a vector, everything. An image without a valid pixel is left out.

    Raises `UserError` for a set without a valid pixel, and where an activation is NaN or infinite.
    """
    activations = _instrumented(model, tensors)
    largest = dict.fromkeys(tensors, 0.0)
    images = set()
    for index, name, values in _walk(activations, calibration):
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
    for _, name, values in _walk(activations, calibration):
        magnitudes = np.abs(values[values != 0])
        zeros[name] += values.size - magnitudes.size
        if magnitudes.size:
            counts[name] += count(magnitudes, largest[name])
    return {name: Histogram(counts[name], zeros[name], largest[name], len(images)) for name in tensors}


def cells(valid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bool h×w of the given `size`: which cells of a feature map lie over a valid pixel of the H×W mask."""
    rows, columns = (np.arange(n) * pixels // n for n, pixels in zip(size, valid.shape, strict=True))
    return np.logical_or.reduceat(np.logical_or.reduceat(valid, rows, axis=0), columns, axis=1)


def _walk(activations: Activations, calibration: CalibrationSet) -> Iterator[tuple[int, str, np.ndarray]]:
    """Every tensor of every image: the place of the image in the set, from 0, the name and the values that count."""
    for index, (image, valid) in enumerate(calibration):
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
        raise UserError(f"the model has {len(proto.graph.input)} inputs; one is needed, the image")
    (image,) = proto.graph.input
    present = {output.name for output in proto.graph.output}
    computed = [name for name in tensors if name != image.name]
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in computed
        if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about output shapes are ours to know
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
