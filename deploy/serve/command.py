"""`edgedistill serve`: answer images over HTTP with what a bundle predicts."""

import argparse
import math
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest, require_unchanged
from deploy.bundle.find import find_bundle
from deploy.command_parser import CommandParser
from deploy.engine_options import add_engine_options, engine_options
from deploy.errors import UserError, warnings_as_lines
from deploy.loading import load
from deploy.tasks.registry import task_of

NEEDS = ("fastapi", "uvicorn", "prometheus_client")
GRACE_S = 30


@warnings_as_lines()
def main(argv: Sequence[str]) -> int:
    """Run the server until a signal stops it; requests in work are finished.

    Raises:
        UserError: an option or the bundle is unsuitable, or the packages are missing.
    """
    options = _parser().parse_args(argv)
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}: pip install 'edgedistill[serve]'")
    import uvicorn  # optional dependencies

    from deploy.serve.app import Limits, make_app
    from deploy.serve.connections import limited

    _check(options)
    bundle = find_bundle(options.bundle)
    manifest = read_manifest(bundle)
    keys = options.key or None
    model = load(bundle, threads=options.threads, trusted_keys=keys, **engine_options(options))
    require_unchanged(bundle, manifest)
    limits = Limits(options.max_mb, options.timeout, options.workers, options.waiting, options.max_pixels)
    app = make_app(model, task_of(manifest), manifest, limits)
    connection, backlog = limited(options.timeout)
    with _listening(options.host, options.port) as listener:  # before uvicorn touches the process's logging
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=connection,
                ws="none",  # it would take connections over
                log_level="warning",
                backlog=backlog,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=5,
                h11_max_incomplete_event_size=1 << 16,
            )
        )
        print(f"{bundle} on {model.engine.name}: http://{options.host}:{options.port}/docs", flush=True)
        server.run([listener])
    return 0 if server.started else 2


def _check(options: argparse.Namespace) -> None:
    for name in ("max_mb", "max_pixels", "timeout", "workers"):
        if not 0 < getattr(options, name) < math.inf:
            raise UserError(
                f"--{name.replace('_', '-')} {getattr(options, name):g}: must be more than 0, and finite"
            )
    if options.waiting < 0:
        raise UserError(f"--waiting {options.waiting}: must be 0 or more")
    if not 0 < options.port < 1 << 16:
        raise UserError(f"--port {options.port}: choose one of 1 to 65535")


def _listening(host: str, port: int) -> socket.socket:
    """The socket of the server, so that an address that cannot be had is one line, before anything is announced."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:  # such as a name that no IDNA can be made of
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: {reason}; choose another --port or --host") from None


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="edgedistill serve",
        description="Answer images over HTTP: POST an image file to /predict?format=mask.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE_OR_RUN")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; anyone who reaches it can use it (127.0.0.1)",
    )
    add("--port", type=int, default=8000, help="(8000)")
    add("--max-mb", type=float, default=20.0, metavar="N", help="largest image in megabytes (20)")
    add("--max-pixels", type=int, default=2**25, metavar="N", help="most pixels of an image (33554432)")
    add(
        "--timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds for a request, and its image, to arrive (10)",
    )
    add("--workers", type=int, default=1, metavar="N", help="images predicted at once (1)")
    add("--waiting", type=int, default=32, metavar="N", help="images that may wait; more get 503 (32)")
    add("--threads", type=int, help="CPU threads of the engine (its own choice)")
    add("--key", action="append", metavar="PUB.pem", help="serve only a bundle that this key has signed")
    add_engine_options(parser)
    return parser
