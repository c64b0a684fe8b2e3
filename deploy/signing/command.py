"""`edgedistill keygen`, `sign`, `trust` and `sbom`, and what `edgedistill verify --key` prints about a signature."""

import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.bundle.bundle_files import read_manifest
from deploy.bundle.engine_files import SUFFIX, engines_folder, read_engine, read_sidecar
from deploy.command_parser import CommandParser
from deploy.errors import UserError
from deploy.files.atomic import atomic_write
from deploy.files.json_output import add_json, print_json, print_result, words_to_stderr
from deploy.signing import trust_store
from deploy.signing.bundle import check_bundle, sign_bundle, trusted_keys, uncovered
from deploy.signing.envelope import short
from deploy.signing.keys import public_path, read_private, write_keys
from deploy.signing.sbom import cyclonedx


def keygen(argv: Sequence[str]) -> int:
    """Make a key, and return the exit code; raises `UserError` where a file exists."""
    parser = CommandParser(
        prog="edgedistill keygen",
        description="Make an Ed25519 key: KEY.pem signs, KEY.pub.pem checks. $EDGEDISTILL_KEY_PASSWORD encrypts it.",
    )
    parser.add_argument("key", type=Path, metavar="KEY.pem")
    add_json(parser)
    options = parser.parse_args(argv)
    path = options.key
    key = write_keys(path)
    line = f"key {key.id}: {path} signs, keep it to yourself; devices need the public key beside it"
    print_result(line, {"key": key.id, "private": path, "public": public_path(path)}, options.json)
    return 0


def sign(argv: Sequence[str]) -> int:
    """Sign a bundle, and return the exit code; raises `UserError` where that is not possible."""
    parser = CommandParser(
        prog="edgedistill sign",
        description="Sign a bundle as it is now, with the engines that it has: after build and threshold.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="private key, Ed25519")
    add_json(parser)
    arguments = parser.parse_args(argv)
    key = read_private(arguments.key)
    dropped = sign_bundle(arguments.bundle, key)
    if dropped:
        others = ", ".join(map(short, dropped))
        print(
            f"note: signatures by {others} were of other content, and are dropped; have them sign again",
            file=sys.stderr,
        )
    line = f"{arguments.bundle}: signed by key {short(key.public.id)}"
    result = {"bundle": arguments.bundle, "key": key.public.id, "dropped": dropped}
    print_result(line, result, arguments.json)
    _note_uncovered(arguments.bundle)
    return 0


def trust(argv: Sequence[str]) -> int:
    """Trust engines, or trust them no longer, and return the exit code.

    Raises:
        UserError: there is no such engine, it is not what its sidecar describes, or its receipt cannot be written.
    """
    parser = CommandParser(
        prog="edgedistill trust",
        description="Trust engines that were built elsewhere. They are native code: be sure where they are from. "
        "Those that `edgedistill build` compiles here are trusted already.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="BUNDLE|ENGINE")
    parser.add_argument("--remove", action="store_true", help="trust them no longer")
    add_json(parser)
    arguments = parser.parse_args(argv)
    changed: list[dict[str, object]] = []
    with words_to_stderr(arguments.json):
        for engine in [engine for path in arguments.paths for engine in _engines_of(path)]:
            sidecar = read_sidecar(engine)
            read_engine(engine, sidecar)
            if arguments.remove:
                known = trust_store.distrust(sidecar.sha256)
                print(f"{engine}: {'trusted no longer' if known else 'was not trusted'}")
            else:
                trust_store.trust(sidecar.sha256, engine, "trusted")
                print(
                    f"{engine}: trusted (SHA-256 {sidecar.sha256}); receipt in {trust_store.trust_folder()}"
                )
            changed.append({"engine": engine, "sha256": sidecar.sha256, "trusted": not arguments.remove})
    if arguments.json:
        print_json({"engines": changed})
    return 0


def _engines_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(engines_folder(path).glob(f"*{SUFFIX}"))
    if not found:
        raise UserError(f"{path}: has no engine to trust; build one, by edgedistill build")
    return found


def sbom(argv: Sequence[str]) -> int:
    """Print a bundle's components, or write them to a file, and return the exit code."""
    parser = CommandParser(
        prog="edgedistill sbom",
        description="List what a bundle consists of (files, training data, packages) as CycloneDX 1.6 JSON.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="default: print it")
    arguments = parser.parse_args(argv)
    content = cyclonedx(read_manifest(arguments.bundle))
    if arguments.out is None:
        print(content.decode(), end="")
    else:
        with atomic_write(arguments.out) as file:
            file.write(content)
    return 0


def signature_lines(bundle: Path, keys: Sequence[str], engines: bool) -> list[str]:
    """Check a bundle's signature, and say whose it is; `UserError` where it is none of these keys'."""
    signed = check_bundle(bundle, trusted_keys(keys), engines)
    _note_uncovered(bundle)
    return [f"{bundle}: signed by key {short(signed.key.id)}"]


def _note_uncovered(bundle: Path) -> None:
    if names := uncovered(bundle, read_manifest(bundle)):
        print(
            f"note: not covered by the signature, and not loaded as code: {', '.join(names)}", file=sys.stderr
        )
