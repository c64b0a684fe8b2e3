"""Compare the network in an ONNX file with the bundle's manifest, before a runtime opens it.

A bundle's network goes forward once, reads one image tensor and returns `labels` and `logits`. Everything else that
ONNX can express is refused here: loops, which may never end; tensors in files that the manifest does not list; and
operators that make huge tensors from a few bytes.
"""

from pathlib import Path

from deploy.bundle.manifest import MOST_VALUES, Manifest
from deploy.bundle.onnx_reader import Declared, Value, read_declared
from deploy.errors import UserError
from deploy.text import shown

LOOPS = ("Loop", "Scan", "SequenceMap")
"""Operators that repeat a graph."""
_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
"""Some of `TensorProto.DataType`."""


def check_network(model: Path, manifest: Manifest) -> None:
    """Check what a model of a bundle declares.

    Args:
        model: its ONNX file.
        manifest: of the bundle.

    Raises:
        UserError: it is damaged, needs what a bundle may not hold, or its inputs or outputs are not those of the
            manifest.
    """
    try:
        declared = read_declared(model)
        _check_contents(declared, manifest)
        _check_interface(declared, manifest)
    except ValueError as error:
        raise UserError(f"{model}: {shown(str(error))}; export the bundle again") from error
    except OSError as error:
        raise UserError(f"{model}: cannot be read ({error.strerror}); copy the whole folder again") from error


def _check_contents(declared: Declared, manifest: Manifest) -> None:
    if not declared.operators:
        raise ValueError("holds no network")
    for name in sorted(declared.external):
        if name not in manifest.files:
            raise ValueError(f"keeps weights in {name or 'another file'}, which is no file of the manifest")
    if loops := declared.operators.intersection(LOOPS):
        raise ValueError(
            f"has the operator {min(loops)}, which may never end; a bundle's network has no loops"
        )
    if declared.largest > MOST_VALUES:
        raise ValueError(
            f"makes a tensor of {declared.largest} values from a constant; at most {MOST_VALUES} are allowed"
        )


def _check_interface(declared: Declared, manifest: Manifest) -> None:
    spec = manifest.input
    size, channels = (spec.height, spec.width), len(spec.channels)
    image = (*size, channels) if spec.layout == "NHWC" else (channels, *size)
    if len(declared.inputs) != 1:
        raise ValueError(f"has {len(declared.inputs)} inputs instead of one")
    for name, value in declared.inputs.items():
        _check_value(f"input {name}", value, spec.dtype, ("N", *image))
    listed = {output.name: output for output in manifest.outputs}
    wanted = {"labels": ("uint8", ("N", *size)), "logits": ("float32", ("N", "K", "h", "w"))}
    for name, (kind, shape) in wanted.items():
        if name not in declared.outputs:
            raise ValueError(f"has no output {name}, but {', '.join(declared.outputs) or 'none'}")
        _check_value(f"output {name}", declared.outputs[name], kind, shape)
        if name in listed:
            told = listed[name]
            _check_value(f"output {name}", declared.outputs[name], told.dtype, told.shape)


def _check_value(what: str, value: Value, kind: str, shape: tuple[int | str, ...]) -> None:
    """Compare type and sizes as far as both are known; sizes that vary fit any."""
    found = _TYPES.get(value.kind or 0, f"of type {value.kind}")
    if value.kind is not None and found != kind:
        raise ValueError(f"{what} is {found}, the manifest tells {kind}")
    sizes = value.shape
    if sizes is None:
        return
    pairs = zip(sizes[1:], shape[1:], strict=False)
    fits = all(one == other or isinstance(one, str) or isinstance(other, str) for one, other in pairs)
    if len(sizes) != len(shape) or not fits:
        raise ValueError(f"{what} is {_words(sizes)}, the manifest tells {_words(shape)}")


def _words(shape: tuple[int | str, ...]) -> str:
    return "×".join(str(size) or "?" for size in shape) or "a scalar"
