"""The commands that run on a device, from `predict` to `sbom`."""

import argparse
import contextlib
import io
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from deploy.backends.engine import WITHOUT_ENGINES
from deploy.backends.setting import BF16
from deploy.bundle.bundle_files import read_manifest, require_unchanged, verify_files
from deploy.bundle.engine_files import (
    SUFFIX,
    LayerSummary,
    Sidecar,
    computes_in_tf32,
    engines_folder,
    read_sidecar,
)
from deploy.bundle.find import bundle_in
from deploy.bundle.manifest import InputSpec, Manifest
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import GateFailed, UserError, warnings_as_lines
from deploy.evaluation.golden import compare
from deploy.files.json_output import add_json, print_json
from deploy.loading import load
from deploy.sandbox import MEGABYTES, SECONDS, Limits, run_limited
from deploy.signing.command import signature_lines
from deploy.text import shown
from deploy.verbosity import take_options

OWN_PARSERS = {
    "card": ("deploy.card:main", "write the model card of a bundle"),
    "build": (
        "deploy.build_engine:main",
        "quantize and compile a bundle for a device, and verify the result",
    ),
    "doctor": ("deploy.doctor.command:main", "show what of this machine works, and how to mend the rest"),
    "keygen": ("deploy.signing.command:keygen", "make a key to sign bundles with"),
    "lint": ("deploy.lint:lint_command", "predict how compilers will handle a bundle or an ONNX file"),
    "measure": ("deploy.measure.command:main", "measure how fast candidates and bundles are on this device"),
    "predict-many": (
        "deploy.cluster.command:main",
        "predict many images or rasters by several processes or machines",
    ),
    "serve": ("deploy.serve.command:main", "answer images over HTTP"),
    "triton": ("deploy.triton.command:main", "write a model repository for the Triton inference server"),
    "predict": ("deploy.predict.command:main", "run a bundle on images, or on a video, camera or stream"),
    "predict-raster": (
        "deploy.raster.command:main",
        "segment a GeoTIFF of any size into a GeoTIFF of labels",
    ),
    "sbom": ("deploy.signing.command:sbom", "list what a bundle consists of, as CycloneDX"),
    "sign": ("deploy.signing.command:sign", "sign a bundle"),
    "trust": ("deploy.signing.command:trust", "trust engines that were built elsewhere"),
    "threshold": (
        "deploy.analysis.decision:main",
        "choose the probability threshold of a two-class bundle on validation data",
    ),
}
"""Commands with a parser of their own: where it is, and their line in --help."""


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run one command, such as `["predict", "bundle", "photo.jpg"]`, and return its exit code.

    Raises:
        UserError: an error that the user can fix; see `errors.exit_with_one_line`.
    """
    argv = take_options(argv)
    if list(argv[-1:]) == ["--version"]:
        print(f"edgedistill {_version()}")
        return 0
    if argv and argv[0] in OWN_PARSERS:
        return _own_parser(argv[0])(argv[1:])
    arguments = _parser().parse_args(argv)
    return arguments.command(arguments)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # start-up time

    try:
        return version("edgedistill")
    except PackageNotFoundError:
        return "(not installed, used from a folder)"


def _own_parser(command: str) -> Callable[[Sequence[str]], int]:
    """The function of a command with a parser of its own. Start-up time: each imports only what it needs."""
    if command == "lint" and find_spec("onnx") is None:
        raise UserError("lint reads ONNX files: pip install 'edgedistill[quantize]'")
    module, function = OWN_PARSERS[command][0].split(":")
    return getattr(import_module(module), function)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="edgedistill", description="Run a bundle on this device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="show what a bundle holds")
    info.add_argument("bundle", type=Path, metavar="BUNDLE")
    add_json(info)
    info.set_defaults(command=_info)

    verify = commands.add_parser(
        "verify", help="check a bundle's files, and compare its golden outputs on this device"
    )
    _add_verify_options(verify)

    # for the list in --help: `main` calls them before it parses anything
    for name, (_, text) in OWN_PARSERS.items():
        commands.add_parser(name, help=text)
    return parser


def _add_verify_options(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("bundle", type=Path, metavar="BUNDLE")
    add_engine_options(verify)
    verify.add_argument(
        "--sandbox",
        action="store_true",
        help="for bundles of unknown origin: check in a child process on the CPU, with limits on memory and time",
    )
    verify.add_argument("--sandbox-mb", type=int, default=MEGABYTES, help="its memory (default: %(default)s)")
    verify.add_argument(
        "--sandbox-seconds", type=int, default=SECONDS, help="its time (default: %(default)s)"
    )
    verify.add_argument(
        "--key",
        action="append",
        metavar="PUB.pem",
        help="trusted public key: the bundle must be signed by it, or by one of several (edgedistill sign)",
    )
    add_json(verify)
    verify.set_defaults(command=_verify)


def _info(arguments: argparse.Namespace) -> int:
    arguments.bundle = bundle_in(arguments.bundle)
    if arguments.json:
        manifest, engines = read_manifest(arguments.bundle), describe_engines(arguments.bundle)
        print_json({"bundle": arguments.bundle, "manifest": manifest, "engines": engines})
        return 0
    lines = [*describe_manifest(read_manifest(arguments.bundle)), *describe_engines(arguments.bundle)]
    print("\n".join(lines))
    return 0


class EngineLine(NamedTuple):
    """What is said of a compiled engine."""

    text: str
    failed: bool
    """Whether it is over its budget, or its description cannot be read."""


def describe_engines(bundle: Path) -> list[str]:
    """One line for each engine compiled from the bundle, damaged ones included."""
    return [line.text for line in engine_lines(bundle)]


def engine_lines(bundle: Path) -> list[EngineLine]:
    """`describe_engines`, with what became of each."""
    lines, manifest = [], read_manifest(bundle)
    for path in sorted(engines_folder(bundle).glob(f"*{SUFFIX}")):
        try:
            sidecar = read_sidecar(path)
            text, failed = _describe_engine(sidecar, manifest), sidecar.passed is False
        except UserError as error:
            text, failed = str(error), True
        lines.append(EngineLine(f"engine   {path.name}: {text}", failed))
    return lines


def _describe_engine(sidecar: Sidecar, manifest: Manifest) -> str:
    device = ", ".join(sidecar.targets) or f"{sidecar.gpu} ({sidecar.compute_capability})"
    layers, source = sidecar.layers, manifest.files.get(sidecar.source)
    current = source is not None and source.sha256 == sidecar.source_sha256
    parts = (
        f"{sidecar.backend} {sidecar.version}",
        sidecar.precision + (" in TF32 from Ampere on" if computes_in_tf32(sidecar) else ""),
        f"for {device}",
        f"{sidecar.bytes / 1e6:.1f} MB",
        _describe_layers(layers, sidecar.precision) if layers else "",
        "" if current else "of an older model",
        "FAILED its gate" if sidecar.passed is False else "",
    )
    return ", ".join(filter(None, parts))


def _describe_layers(layers: LayerSummary, precision: str) -> str:
    if precision == "fp8":
        return f"{layers.fp8_convolutions} of {layers.convolutions} convolutions in FP8"
    return f"{layers.int8_convolutions} of {layers.convolutions} convolutions in INT8"


def describe_manifest(manifest: Manifest) -> list[str]:
    """Lines of text that describe a bundle: task, inputs, outputs, classes, files, metrics and provenance."""
    spec = manifest.input
    pixels = "pixels that are not finite carry no data" if spec.nodata else "every pixel carries data"
    files = {
        name: f"{entry.bytes:,} bytes{f', {entry.precision}' if entry.precision else ''}"
        for name, entry in manifest.files.items()
    }
    return [
        f"{manifest.name}: {manifest.task}, {len(manifest.classes)} classes",
        f"input    {spec.dtype} {spec.layout}, {spec.height}×{spec.width}, {spec.resize}; {pixels}",
        *(f"channel  {line}" for line in _describe_channels(spec)),
        *(
            f"output   {o.name}: {o.dtype} {'×'.join(map(str, o.shape))}, {o.meaning}"
            for o in manifest.outputs
        ),
        *(f"class    {i}: {c.name} #{bytes(c.color).hex()}" for i, c in enumerate(manifest.classes)),
        *_describe_decision(manifest),
        *(f"file     {name}: {text}" for name, text in files.items()),
        *(f"metric   {name}: {shown(str(value))}" for name, value in manifest.metrics.items()),
        *(f"origin   {name}: {shown(value)}" for name, value in manifest.provenance.items()),
    ]


def _describe_channels(spec: InputSpec) -> list[str]:
    if spec.normalize != "set":
        return [f"{name}: mean and std of each {spec.normalize}" for name in spec.channels]
    rows = enumerate(zip(spec.channels, spec.mean, spec.std, strict=True))
    return [
        f"{name}: mean {mean:g}, std {std:g}{spec.scale.words(slice(place, place + 1))}"
        for place, (name, mean, std) in rows
    ]


def _describe_decision(manifest: Manifest) -> list[str]:
    lines = []
    if manifest.temperature is not None:
        lines.append(f"decision scores are divided by {manifest.temperature:g}")
    if manifest.threshold is not None:
        lines.append(f"decision {manifest.classes[1].name} from a probability of {manifest.threshold:g}")
    return lines


def _verify(arguments: argparse.Namespace) -> int:
    """Check a bundle, and print what was checked; with `--json` as one record, whose words are the lines."""
    if not arguments.json:
        return _verified(arguments)
    words = io.StringIO()
    with contextlib.redirect_stdout(words):
        try:
            code = _verified(arguments)
        except GateFailed as failure:
            print(failure)
            code = failure.exit_code
    print_json({"bundle": arguments.bundle, "passed": code == 0, "checks": words.getvalue().splitlines()})
    return code


def _verified(arguments: argparse.Namespace) -> int:
    arguments.bundle = bundle_in(arguments.bundle)
    if arguments.key is not None:
        for line in signature_lines(
            arguments.bundle, arguments.key, arguments.backend not in WITHOUT_ENGINES
        ):
            print(line)
    if arguments.sandbox:
        engine = ("--backend", arguments.backend, "--precision", arguments.precision)
        argv = ("verify", str(arguments.bundle), *engine)
        limits = Limits(arguments.sandbox_mb, arguments.sandbox_seconds)
        print(run_limited(argv, str(arguments.bundle), limits))
        return 0
    manifest = read_manifest(arguments.bundle)
    verify_files(arguments.bundle, manifest)
    # The files have been checked; a signature is checked again, as it says which engines may be loaded.
    signed = {"trusted_keys": arguments.key} if arguments.key else {"verify": False}
    model = load(arguments.bundle, **signed, **engine_options(arguments))
    require_unchanged(arguments.bundle, manifest)
    print(f"{arguments.bundle}: {len(manifest.files)} files match their checksums")
    engines = [model.engine]
    if model.engine.name.endswith(f" {BF16}"):  # it runs the fp32 model, whose logits can be compared closely
        engines.append(load(arguments.bundle, "openvino", precision="fp32", verify=False).engine)
    comparisons = [compare(arguments.bundle, engine) for engine in engines]
    for one in comparisons:
        print(one.text)
    return 0 if all(one.passed for one in comparisons) else 1
