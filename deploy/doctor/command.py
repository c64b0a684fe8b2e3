"""`edgedistill doctor`: print what was found, in words or as JSON."""

from collections.abc import Iterator, Sequence

import msgspec

from deploy.backends.setting import computes_bf16
from deploy.command_parser import CommandParser
from deploy.doctor.checks import Part, Report, examine
from deploy.files.atomic import json_bytes
from deploy.host import cpu_flags
from deploy.text import shown

INT8_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
"""Instructions that make INT8 convolutions fast; the first that the CPU has is named."""


def main(argv: Sequence[str]) -> int:
    """Run the command; always 0, whatever is found."""
    parser = CommandParser(
        prog="edgedistill doctor",
        description="Show what of this machine and its packages works, what does not, and how to mend it.",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, for programs and reports of problems"
    )
    arguments = parser.parse_args(argv)
    report = examine()
    print(json_bytes(report).decode().rstrip() if arguments.json else "\n".join(lines(report)))
    return 0


def lines(report: Report) -> Iterator[str]:
    """The report in words."""
    machine = report.machine
    packages = msgspec.convert(machine["packages"], dict[str, str])
    yield f"edgedistill {packages.get('edgedistill', '(not installed, used from a folder)')}"
    yield f"Python      {machine['python']}, {machine['os']}"
    name = machine["device"] or machine["cpu"] or machine["architecture"]
    memory = machine["memory_bytes"]
    size = f", {memory / 1e9:.0f} GB" if isinstance(memory, int) else ""
    yield f"machine     {name}, {machine['usable_cores']} cores{size}"
    yield f"CPU         {_arithmetic()}"
    yield f"packages    {', '.join(f'{one} {version}' for one, version in packages.items() if one != 'edgedistill')}"
    yield f"NVIDIA      {_nvidia(report)}"
    yield "backends"
    yield from _parts(report.backends)
    yield "optional packages"
    yield from _parts(report.packages)


def _arithmetic() -> str:
    """What the CPU's instructions mean for INT8 and bf16."""
    fast = next((flag for flag in INT8_FLAGS if flag in cpu_flags()), None)
    int8 = (
        f"INT8 is fast ({fast})" if fast else "INT8 may be no faster than fp32 (no VNNI, AMX or dot products)"
    )
    return int8 + (", computes in bf16" if computes_bf16() else "")


def _nvidia(report: Report) -> str:
    if report.gpus:
        told = "{name}, compute capability {compute_capability}, CUDA {driver} (packages of {runtime}, {provider})"
        return "; ".join(told.format(**gpu) for gpu in report.gpus)
    found = report.nvidia
    parts = (
        f"Jetson Linux {found['l4t']}" if found["l4t"] else "",
        f"driver {found['driver']}" if found["driver"] else "",
        "a GPU on the PCI bus" if found["gpu"] else "",
        "inside a container" if found["container"] else "",
    )
    return f"no GPU that can be used ({', '.join(filter(None, parts)) or 'no sign of one'})"


def _parts(parts: Sequence[Part]) -> Iterator[str]:
    width = max(len(part.name) for part in parts)
    for part in parts:
        yield f"  {'✓' if part.works else '✗'} {part.name:{width}}  {shown(part.detail)}"
        if part.remedy:
            yield f"    {'':{width}}  → {part.remedy}"
