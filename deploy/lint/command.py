"""The command: `edgedistill lint FILE|BUNDLE [--target T] [--precision P] [--json]`."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import msgspec

from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.manifest import FP8, FP16, INT8, INT8_CPU, MANIFEST
from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.lint.coverage import Int8Coverage, predict_int8_coverage
from deploy.lint.finding import CPU, TARGETS, Finding, Level
from deploy.lint.reading import read_graph
from deploy.lint.rules import check

COMPILED = ("tensorrt-10", "tensorrt-11", "tensorrt-rtx")
"""Targets of a TensorRT file unless --target names another; the DLA is checked only on request."""
MEANT_FOR: dict[str, tuple[str, ...]] = {
    FP16: COMPILED,
    INT8: COMPILED,
    FP8: COMPILED,
    INT8_CPU: CPU,
}
"""Targets of the files in a bundle that are made for some targets only, by file name."""
SHOWN = 3
"""Places printed for each rule; --json prints all."""


class Checked(msgspec.Struct, frozen=True):
    """One file checked for one target."""

    file: str
    target: str
    findings: list[Finding]
    coverage: Int8Coverage = msgspec.field(name="forecast")
    """Called "forecast" in the JSON of `--json`."""


def lint_command(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit code: 1 when a target refuses a file, else 0.

    Raises:
        UserError: a file that is missing, unreadable, empty, corrupt, or not an ONNX model.
    """
    arguments = _parser().parse_args(argv)
    try:
        checked = [
            one
            for path, targets in _files(arguments.path, arguments.precision)
            for one in _check(path, (arguments.target,) if arguments.target else targets)
        ]
    except OSError as error:
        where = error.filename or arguments.path
        raise UserError(
            f"{where}: cannot be read ({error.strerror}); give an ONNX file or a bundle"
        ) from error
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(checked), indent=2).decode())
    else:
        groups = _alike(checked)
        print("\n".join(line for group in groups for line in _report(group)))
        print(_total([group[0] for group in groups]))
    return int(any(finding.level == "error" for one in checked for finding in one.findings))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill lint",
        description="Predict how compilers will handle an ONNX file: what they refuse, run in float, or run slowly.",
    )
    parser.add_argument("path", type=Path, metavar="FILE|BUNDLE")
    parser.add_argument(
        "--target", choices=TARGETS, help="check for this target only (default: all that the file is for)"
    )
    parser.add_argument("--precision", help="check only the bundle's files of this precision, such as int8")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser


def _files(path: Path, precision: str | None) -> list[tuple[Path, tuple[str, ...]]]:
    """The ONNX files to check, each with its targets."""
    if path.is_dir() or path.name == MANIFEST:
        folder = path if path.is_dir() else path.parent
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        models = {name: entry.precision for name, entry in manifest.files.items() if name.endswith(".onnx")}
        chosen = [name for name, kind in models.items() if precision in (None, kind)]
        if not chosen:
            known = ", ".join(sorted(set(models.values()))) or "none"
            raise UserError(f"{folder}: has no ONNX model of precision {precision}; it has {known}")
        return [(folder / name, MEANT_FOR.get(name, (*COMPILED, *CPU))) for name in chosen]
    if precision is not None:
        raise UserError(f"--precision {precision}: {path} is one file; give a bundle to choose from")
    return [(path, MEANT_FOR.get(path.name, (*COMPILED, *CPU)))]


def _check(path: Path, targets: Sequence[str]) -> Iterator[Checked]:
    try:
        graph = read_graph(path.read_bytes(), path.parent)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    for target in targets:
        yield Checked(path.name, target, check(graph, target), predict_int8_coverage(graph, target))


def _alike(checked: Sequence[Checked]) -> list[list[Checked]]:
    """Targets for which a file gives the same findings, together."""
    groups: list[list[Checked]] = []
    for one in checked:
        last = groups[-1][0] if groups else None
        if last and (last.file, last.findings, last.coverage) == (one.file, one.findings, one.coverage):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _report(group: Sequence[Checked]) -> Iterator[str]:
    checked = group[0]
    yield f"{checked.file} on {', '.join(one.target for one in group)}"
    for level in get_args(Level):
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in checked.findings:
            if finding.level == level:
                groups.setdefault((finding.rule, finding.remedy), []).append(finding)
        for (rule, remedy), findings in groups.items():
            yield f"  {level:<8}{rule}{f' × {len(findings)}' if len(findings) > 1 else ''}"
            yield from (f"          {finding.where}: {finding.message}" for finding in findings[:SHOWN])
            if len(findings) > SHOWN:
                yield f"          … and {len(findings) - SHOWN} more"
            yield f"          → {remedy}"
    yield f"  {checked.coverage}"


def _total(checked: Sequence[Checked]) -> str:
    counts = Counter(finding.level for one in checked for finding in one.findings)
    found = ", ".join(
        f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}"
        for level in get_args(Level)
        if counts[level]
    )
    return found or "no findings"
