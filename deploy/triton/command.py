"""`edgedistill triton`: write a bundle as a model of a Triton repository."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deploy.bundle.find import find_bundle
from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.files.json_output import add_json, print_result
from deploy.triton.repository import FILES, INSTANCE, MODELS, Serving, write_repository


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option or the bundle is unsuitable.
    """
    options = _parser().parse_args(argv)
    for name, least in (("max_batch", 0), ("delay_us", 0), ("instances", 1)):
        given = getattr(options, name)
        if given is not None and given < least:
            raise UserError(f"--{name.replace('_', '-')} {given}: must be {least} or more")
    bundle = find_bundle(options.bundle)
    name = options.name or bundle.resolve().name.removesuffix(".bundle")
    serving = Serving(
        name,
        options.backend,
        options.max_batch,
        options.delay_us,
        options.instances,
        options.device,
        options.without_threshold,
    )
    folder = write_repository(bundle, options.out, options.precision, serving)
    repository = options.out.resolve()
    line = f"{folder}: start Triton with  tritonserver --model-repository={repository}"
    print_result(line, {"folder": folder, "model_repository": repository}, options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill triton",
        description="Write a bundle as a model of a repository for the Triton inference server.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE_OR_RUN")
    add("out", type=Path, metavar="REPOSITORY")
    add("--name", help="of the model (that of the bundle's folder)")
    add(
        "--backend",
        choices=tuple(FILES),
        default="onnxruntime",
        help="tensorrt: an engine that build made with this version of TensorRT on this kind of GPU (onnxruntime)",
    )
    add("--precision", choices=(*MODELS, "fp8"), default="fp32", help="(fp32)")
    add(
        "--max-batch",
        type=int,
        metavar="N",
        help="images that Triton may batch; 0: none (8, of an engine its largest)",
    )
    add(
        "--delay-us", type=int, default=1000, metavar="N", help="how long it waits for a batch to fill (1000)"
    )
    add("--instances", type=int, default=1, metavar="N", help="copies of the model (1)")
    add("--device", choices=tuple(INSTANCE), help="(cpu, of an engine gpu)")
    add(
        "--without-threshold",
        action="store_true",
        help="the client decides on the logits, where a threshold is set",
    )
    add_json(parser)
    return parser
