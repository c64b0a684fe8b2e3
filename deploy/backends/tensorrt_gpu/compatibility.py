"""Whether an engine can run on this machine, and the command that builds one that can."""

import platform
import re
import shlex
from pathlib import Path

from deploy import host
from deploy.backends.core import CORE
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.tensorrt_gpu.cuda_interface import Device
from deploy.bundle.engine_files import RebuildNeeded, Sidecar
from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.signing.trust_store import why_untrusted


class UntrustedEngine(UserError):
    """An engine that this user has neither built nor trusted."""


def build_command(bundle: Path, like: Sidecar, gpu: Device) -> str:
    """The command line that builds a new engine like that of the sidecar, also for this GPU."""
    least, best, most = like.batch
    command = (
        f"edgedistill build {shlex.quote(str(bundle))} --backend {like.backend} --precision {like.precision}"
    )
    options = [] if most == 1 else ["--batch", str(best) if least == most else f"{least},{best},{most}"]
    if like.targets:
        options += ["--targets", ",".join(dict.fromkeys((*like.targets, _target(gpu))))]
    if level := like.options.get("hardware_compatible"):
        options += ["--hardware-compatible", str(level)]
    if like.options.get("version_compatible"):
        options.append("--version-compatible")
    if (core := like.options.get("dla_core")) is not None:
        options += ["--dla", str(core), *(["--no-gpu-fallback"] if CORE in like.options else [])]
    return " ".join([command, *options])


def check_fits(
    engine: Path, sidecar: Sidecar, manifest: Manifest, gpu: Device, version: str, *, judged: bool
) -> None:
    """Check by its sidecar that an engine can run here, and should.

    Args:
        engine: path of the engine.
        sidecar: its sidecar.
        manifest: the manifest of its bundle.
        gpu: this machine's GPU.
        version: version of the TensorRT on this machine.
        judged: accept an engine that failed its accuracy gate.

    Raises:
        RebuildNeeded: it was built from another model, by another version or for another GPU.
        UserError: it failed its accuracy gate.
    """
    source = manifest.files.get(sidecar.source)
    if source is None or source.sha256 != sidecar.source_sha256:
        raise RebuildNeeded(
            f"{engine}: was built from another {sidecar.source} than the bundle's; build it again"
        )
    if sidecar.passed is False and not judged:
        raise UserError(
            f"{engine}: failed its accuracy gate when it was built; choose another precision or backend"
        )
    if not fits_version(sidecar, version):
        made_by = f"{sidecar.backend} {sidecar.version}"
        raise RebuildNeeded(f"{engine}: was built by {made_by}, this machine has {version}; build it again")
    if not fits_platform(sidecar):
        built_on, here = f"{sidecar.os} {sidecar.architecture}", f"{platform.system()} {platform.machine()}"
        raise RebuildNeeded(f"{engine}: was built on {built_on}, this machine is {here}; build it again")
    if not fits_gpu(sidecar, gpu):
        made_for = (
            ", ".join(sidecar.targets) or f"{sidecar.gpu} (compute capability {sidecar.compute_capability})"
        )
        here = f"{full_name(gpu)} (compute capability {gpu.compute_capability})"
        raise RebuildNeeded(f"{engine}: was built for {made_for}, this machine has {here}; build it again")


def check_trusted(engine: Path, sidecar: Sidecar, options: GpuOptions) -> None:
    """Check that an engine, whose bytes have the sidecar's checksum, may be loaded: it is native code.

    Raises:
        UntrustedEngine: this user has neither built nor trusted it.
        UserError: a trusted key was given, which has not signed it; or it carries code for the CPU, and the caller did
            not allow that.
    """
    if sidecar.options.get("version_compatible") and not options.allow_host_code:
        raise UserError(
            f"{engine}: carries code for the CPU, as it was built to be version compatible; load it with"
            " allow_host_code=True (--allow-host-code), or build it without --version-compatible"
        )
    if options.trust_engines:
        return
    if options.signed is not None:
        if sidecar.sha256 not in options.signed:
            raise UserError(
                f"{engine}: no trusted key has signed it; sign the bundle again, by edgedistill sign"
            )
    elif why := why_untrusted(sidecar.sha256):
        raise UntrustedEngine(
            f"{engine}: is native code that {why}; if you know where it is from, trust it by"
            f" `edgedistill trust {shlex.quote(str(engine))}`, or build it again"
        )


def fits_version(sidecar: Sidecar, version: str) -> bool:
    """Whether the version is the same, or a later one of the same major version if the engine was built for that.

    Of other major versions TensorRT 11 runs such engines of 10 (support matrix of 11.4).
    """
    built, here = (list(map(int, re.findall(r"\d+", text))) for text in (sidecar.version, version))
    later = here > built and (here[:1] == built[:1] or (built[:1], here[:1]) == ([10], [11]))
    return version == sidecar.version or (bool(sidecar.options.get("version_compatible")) and later)


def fits_platform(sidecar: Sidecar) -> bool:
    """Whether operating system and architecture are those that the engine was built on, as far as that matters.

    Engines of TensorRT are not portable between them (its support matrix); those of TensorRT-RTX are.
    """
    here = {"os": platform.system(), "architecture": platform.machine()}
    known = {name: value for name in here if (value := getattr(sidecar, name))}
    return sidecar.backend == "tensorrt-rtx" or all(here[name] == value for name, value in known.items())


def full_name(gpu: Device) -> str:
    """The name of a GPU; of an integrated one, alike in modules of any size, with the name of the board."""
    board = host.device() if gpu.integrated else ""
    return f"{gpu.name} in {board}" if board else gpu.name


def tuned_for(sidecar: Sidecar, gpu: Device) -> str:
    """The other GPU, of the same compute capability, that an engine's kernels were chosen on; "" if it is this one."""
    made_here = (
        not sidecar.gpu or sidecar.gpu == full_name(gpu) or bool(sidecar.options.get("hardware_compatible"))
    )
    return "" if made_here else sidecar.gpu


def _target(gpu: Device) -> str:
    return f"sm{gpu.compute_capability.replace('.', '')}"


def fits_gpu(sidecar: Sidecar, gpu: Device) -> bool:
    """Whether the GPU is among the targets of an engine built ahead of time, or is like the one it was built on."""
    if sidecar.targets:
        return _target(gpu) in sidecar.targets
    if sidecar.options.get("hardware_compatible") == "ampere+":
        return int(gpu.compute_capability.split(".")[0]) >= 8
    return sidecar.compute_capability == gpu.compute_capability
