"""Two machines for torchrun, emulated by two network namespaces, or by two launchers on the loopback."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from distill.pipeline.machines import OWN_STORE
from tests.conftest import ROOT

SECONDS = 400
"""Longest time that two nodes may work."""


@dataclass(frozen=True)
class Node:
    """A machine: its address, the prefix of commands that run there, and their variables."""

    address: str
    prefix: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes that reach each other: in namespaces where these can be made (Linux, as root)."""
    names, cable = ["one", "two"], f"ed{os.getpid() % 100_000}"
    spaces = [f"{cable}-{name}" for name in names]
    try:
        try:
            for space in spaces:
                _ip("netns", "add", space)
            ends = [f"{cable}a", f"{cable}b"]
            _ip(
                "link",
                "add",
                ends[0],
                "netns",
                spaces[0],
                "type",
                "veth",
                "peer",
                "name",
                ends[1],
                "netns",
                spaces[1],
            )
            nodes = [
                _connected(*pair) for pair in zip(spaces, ends, ("10.77.16.1", "10.77.16.2"), strict=True)
            ]
        except (OSError, subprocess.CalledProcessError):
            nodes = [Node("127.0.0.1")] * 2
        yield nodes[0], nodes[1]
    finally:
        for space in spaces:
            with suppress(OSError, subprocess.CalledProcessError):
                _ip("netns", "del", space)


def _connected(space: str, end: str, address: str) -> Node:
    _ip("-n", space, "addr", "add", f"{address}/24", "dev", end)
    for each in ("lo", end):
        _ip("-n", space, "link", "set", each, "up")
    return Node(address, ("ip", "netns", "exec", space), {"GLOO_SOCKET_IFNAME": end})


def _ip(*arguments: str) -> None:
    if shutil.which("ip") is None:
        raise FileNotFoundError("ip")
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@dataclass(frozen=True)
class Ended:
    """How a launcher ended, and what it and its processes printed."""

    code: int
    printed: str


def launch_on(
    nodes: Sequence[Node], commands: Sequence[Sequence[str]], *options: str, port: int
) -> list[Ended]:
    """Let torchrun start a process on each node, and wait for both.

    Args:
        nodes: the first one is the meeting point.
        commands: arguments of `python`, by node.
        options: of torchrun.
        port: of the meeting point.
    """
    started = [
        subprocess.Popen(
            torchrun(node, number, nodes[0], port, options) + list(command),
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", OWN_STORE: "1", **node.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for number, (node, command) in enumerate(zip(nodes, commands, strict=True))
    ]
    try:
        printed = [process.communicate(timeout=SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(process.returncode, text) for process, text in zip(started, printed, strict=True)]


def torchrun(node: Node, number: int, first: Node, port: int, options: Sequence[str] = ()) -> list[str]:
    """The command that starts one process on a node of two."""
    return [
        *node.prefix,
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={first.address}:{port}", f"--local-addr={node.address}"),
        f"--rdzv-conf=is_host={'false' if number else 'true'},join_timeout=120",
        *options,
    ]


def free_port() -> int:
    """A port that nothing uses on this machine."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def errors(printed: str) -> list[str]:
    """The lines with which commands end that a user can mend."""
    return [line for line in printed.splitlines() if line.startswith("error: ")]
