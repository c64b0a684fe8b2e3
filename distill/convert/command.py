"""Make a checkpoint of a published network: `edgedistill convert FILE OUT.safetensors [--classes classes.json]`."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.files.json_output import add_json, print_json, words_to_stderr
from distill.config import ModelConfig
from distill.data.datasets.classes_file import ClassEntry, read_classes
from distill.data.datasets.pairs import RGB_CHANNELS
from distill.training.checkpoint import Meta, pack, save_checkpoint
from distill.training.checkpoint_metadata import recorded_options
from student.zoo import build_network
from teacher.external.package_files import PackagedNetwork, package_of, read_packaged, smp_source
from teacher.mmseg_config import Described, described
from teacher.published import Project, Published, load_published, read_published
from teacher.weights import read_file, tensors_of

DEFAULTS = {
    "semseg": Described(None, 8, align_corners=True, contract_dilation=False),
    "MMSegmentation": Described(None, 8, align_corners=False, contract_dilation=True),
}
"""How each project builds its PSPNets, where neither the file nor an option says otherwise."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's channels R G B in 0..255, by which both projects normalize."""


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Raises:
        UserError: an option is wrong, or the file cannot be converted exactly; nothing has been written then.
    """
    options = _parser().parse_args(argv)
    with words_to_stderr(options.json):
        arch, meta = convert(options)
    if options.json:
        names = ("converted_from", "classes", "mean", "std")
        print_json({"file": options.target, "arch": arch} | {name: meta[name] for name in names})
    return 0


def convert(options: argparse.Namespace) -> tuple[str, Meta]:
    """Write the checkpoint; its architecture, and what it says of itself. Raises `UserError` as `main` does."""
    source, target = options.source, options.target
    if target.suffix != ".safetensors" or target.resolve() == source.resolve():
        raise UserError(f"{target}: give the file to write another name, with the ending .safetensors")
    source, arch = smp_source(source)
    content, name = read_file(source), str(source)
    state = tensors_of(content, source)
    if package_of(state) is not None:
        found = read_packaged(state, options.arch or arch, name)
        return found.arch, convert_packaged(found, options, source)
    if options.arch:
        raise UserError(
            f"--arch {options.arch}: is for files of torchvision and SMP; leave it out for {source}"
        )
    published, says = read_published(state, name), described(content, name)
    model, origins = _model(published, options, says)
    mean, std = normalization(options, says)
    classes = class_names(options.classes, says, published.outputs, source)
    network = build_network(
        num_outputs=len(classes), in_channels=3, aux=published.aux, **recorded_options(model)
    )
    count = load_published(network, published, name)
    options_of = recorded_options(model) | {"aux": published.aux}
    meta = metadata(options_of, classes, mean, std, f"{published.project}: {source.name}")
    save_checkpoint(target, pack("model", network.state_dict()), meta)
    _report(published, model, origins, count, meta, target)
    return model.arch, meta


def metadata(
    model: dict[str, Any], classes: Sequence[str], mean: Sequence[float], std: Sequence[float], origin: str
) -> Meta:
    """The description of a converted network in its checkpoint."""
    return {
        "model": model,
        "channels": list(RGB_CHANNELS),
        "classes": list(classes),
        "mean": list(mean),
        "std": list(std),
        "normalize": "set",
        "converted_from": origin,
    }


def convert_packaged(found: PackagedNetwork, options: argparse.Namespace, source: Path) -> Meta:
    """Write the checkpoint of a network of torchvision or SMP, and return what it says of itself.

    Raises:
        UserError: its classes or its normalization are neither known nor given.
    """
    if found.mean is None and not (options.mean and options.std):
        raise UserError(
            f"{source}: nothing says how images of {found.arch} are normalized; give --mean and --std of R, G and B"
        )
    says = Described(found.classes, None, None, None, found.mean, found.std)
    mean, std = normalization(options, says)
    classes = class_names(options.classes, says, found.outputs, source)
    model = recorded_options(ModelConfig(found.arch)) | {"aux": found.aux}
    meta = metadata(model, classes, mean, std, f"{found.package}: {source.name}")
    save_checkpoint(options.target, pack("model", found.network.state_dict()), meta)
    dropped = f", {found.left_out} of a head for whole images left out" if found.left_out else ""
    print(
        f"{found.package}: {found.arch}, {found.outputs} classes, {found.count} tensors, none left over or missing"
        f"{dropped}"
    )
    origin = "given" if options.mean or options.std else f"usual for {found.package}"
    _report_images(meta, origin)
    print(f"{options.target}: use it with --teacher.arch {found.arch} --teacher.weights {options.target}")
    return meta


def _model(
    published: Published, options: argparse.Namespace, says: Described
) -> tuple[ModelConfig, dict[str, str]]:
    """The configuration of the network, and where each value that shapes do not show comes from."""
    defaults, values, origins = DEFAULTS[published.project], {}, {}
    for name in ("output_stride", "align_corners", "contract_dilation"):
        for origin, given in (
            ("given", options),
            ("from the file", says),
            (_usual(published.project), defaults),
        ):
            if (value := getattr(given, name)) is not None:
                values[name], origins[name] = value, origin
                break
    arch = f"pspnet/{published.backbone}"
    return ModelConfig(arch, head_channels=published.head_channels, detail=False, **values), origins


def _usual(project: Project) -> str:
    return f"usual for {project}"


def normalization(
    options: argparse.Namespace, says: Described
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of R, G and B: as given, or else as the file or its project says."""
    mean, std = (tuple(options.mean or says.mean or MEAN), tuple(options.std or says.std or STD))
    finite = all(math.isfinite(value) for value in (*mean, *std))
    if len(mean) != len(RGB_CHANNELS) or len(std) != len(RGB_CHANNELS) or not finite or min(std) <= 0:
        raise UserError(
            f"mean {_listed(mean)}, std {_listed(std)}: give --mean and --std of R, G and B in 0..255, std above 0"
        )
    return mean, std


def class_names(given: str | None, says: Described, outputs: int, source: Path) -> tuple[str, ...]:
    """The names of the classes: as given, or else those in the file."""
    if given is None:
        names = says.classes
        if names is None:
            raise UserError(
                f"{source}: does not name its {outputs} classes; give --classes with the classes.json of your data, or"
                " with their names in order, separated by commas"
            )
    elif Path(given).suffix == ".json":
        settings = read_classes(Path(given))
        if settings is None:
            raise UserError(f"--classes {given}: no such file")
        names = tuple(entry.name if isinstance(entry, ClassEntry) else entry for entry in settings.classes)
    else:
        names = tuple(name.strip() for name in given.split(","))
    if len(names) != outputs or len(set(names)) != outputs or not all(names):
        raise UserError(
            f"{source}: has {outputs} classes, {len(set(names))} are named; give --classes with all of them"
        )
    return names


def _report(
    published: Published, model: ModelConfig, origins: dict[str, str], count: int, meta: Meta, target: Path
) -> None:
    print(
        f"{published.project}: {model.arch}, {published.outputs} classes, {count} tensors, none left over or missing"
    )
    for name, origin in origins.items():
        print(f"  {name} {getattr(model, name)} ({origin})")
    _report_images(meta)
    print(f"{target}: use it with {' '.join(_flags(model))} --teacher.weights {target}")


def _report_images(meta: Meta, origin: str = "") -> None:
    numbers = f"mean {_listed(meta['mean'])}, std {_listed(meta['std'])}"
    print(f"  {numbers} of {' '.join(meta['channels'])} in 0..255{f' ({origin})' if origin else ''}")
    print(f"  classes {', '.join(meta['classes'])}")


def _flags(model: ModelConfig) -> list[str]:
    flags = [f"--teacher.arch {model.arch}", f"--teacher.output-stride {model.output_stride}"]
    flags += [f"--teacher.head-channels {model.head_channels}", "--teacher.no-detail"]
    flags += ["--teacher.align-corners"] * model.align_corners
    return flags + ["--teacher.no-contract-dilation"] * (not model.contract_dilation)


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill convert",
        description="Make a checkpoint for --teacher.weights of a PSPNet that semseg or MMSegmentation has published,"
        " or of a network of torchvision or segmentation_models_pytorch.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="FILE",
        help="their file (.pth, .safetensors), or a folder of SMP's save_pretrained; nothing in it is executed",
    )
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write (.safetensors)")
    parser.add_argument(
        "--classes", metavar="NAMES", help="a classes.json, or names separated by commas (those in the file)"
    )
    parser.add_argument(
        "--arch",
        metavar="NAME",
        help="of a file of SMP: smp/<Architecture>/<encoder>; torchvision's is found",
    )
    parser.add_argument("--output-stride", type=int, choices=(8, 16, 32), help="of the backbone (8)")
    boolean = argparse.BooleanOptionalAction
    parser.add_argument(
        "--align-corners", action=boolean, help="of the pyramid (semseg: yes, MMSegmentation: no)"
    )
    parser.add_argument(
        "--contract-dilation", action=boolean,
        help="of the first block of dilated stages (semseg: no, MMSegmentation: yes)",
    )  # fmt: skip
    for name, values in (("mean", MEAN), ("std", STD)):
        parser.add_argument(
            f"--{name}", type=float, nargs=3, help=f"of R, G and B in 0..255 (ImageNet's: {_listed(values)})"
        )
    add_json(parser)
    return parser
