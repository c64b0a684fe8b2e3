"""Open a bundle for inference: `load` returns the model of its task."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from deploy.backends.auto import files_to_open
from deploy.backends.engine import (
    CPU,
    CPU_MODELS,
    ORT_GPU,
    WITHOUT_ENGINES,
    Engine,
    cpu_precision,
    model_file,
)
from deploy.backends.gpu_options import GpuOptions
from deploy.backends.open import open_engine
from deploy.bundle.bundle_files import read_manifest, verify_files
from deploy.bundle.find import bundle_in
from deploy.bundle.manifest import KNOWN, MANIFEST, Manifest
from deploy.errors import UserError
from deploy.files.stamp import stamp_of
from deploy.signing.bundle import check_bundle
from deploy.signing.bundle import trusted_keys as read_trusted
from deploy.tasks.registry import model_of, require_labels_alone
from deploy.tasks.task import Model

ATTEMPTS = 3
"""How often a bundle is opened that is replaced at the same time."""

Checked = tuple[Manifest, frozenset[str] | None]
"""What `_checked` returns."""


def load(
    path: str | Path,
    backend: str = "auto",
    threads: int | None = None,
    verify: bool = True,
    precision: str = "auto",
    fallback: bool = False,
    trusted_keys: Sequence[str | Path | bytes] | None = None,
    *,
    device: int = 0,
    max_contexts: int | None = None,
    cuda_graph: bool = False,
    trust_engines: bool = False,
    allow_host_code: bool = False,
    logits: bool = True,
) -> Model:
    """Open a bundle for inference. `model.engine.name` tells which backend and precision were chosen.

    Args:
        path: folder of the bundle, or of a run, which stands for its student.
        backend: "auto" (a TensorRT engine that fits this GPU, else what is fastest on this CPU, measured once and
            remembered beside the bundle), "onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt" (see
            `deploy.backends.onnxruntime_gpu`), "tensorrt" or "tensorrt-rtx".
        threads: number of CPU threads of one call; None: the backend's choice.
        verify: check the checksums of the files to be opened; the manifest and engines are checked all the same.
        precision: "auto", "fp32", "fp16", "int8" or "fp8". "auto" is the fastest that passed its gate; with a backend
            named, INT8 where the bundle has it (it passed) or else fp32, on a GPU the lowest that there is.
        fallback: where the requested TensorRT backend cannot run, use the CPU and warn.
        trusted_keys: public keys, as PEM files or their content: refuse a bundle that none of them has signed (see
            `deploy.signing`); all its files are checked, and engines unless the backend is one of the CPU.
        device: number of the GPU. These and the following are for TensorRT: see `deploy.backends.gpu_options`.
        max_contexts: most calls that run at a time on the GPU; the others wait. None: 4.
        cuda_graph: start the whole network in one call, which is faster for a small network.
        trust_engines: load engines, which are native code, that are not built or trusted here (`edgedistill trust`).
        allow_host_code: load engines that carry code for the CPU, too, as `--version-compatible` builds them.
        logits: False leaves the logits on the GPU: faster, and segmentation then has labels but no probabilities.

    Returns:
        The model of the bundle's task, such as a `deploy.tasks.segmentation.model.SegmentationModel`.

    Raises:
        UserError: the bundle is incomplete, changed, of a newer schema or not signed by a trusted key; it or this
            machine lacks what was asked for; or it is replaced again and again meanwhile. The message names the file
            and the remedy.
    """
    folder = bundle_in(path)
    gpu = GpuOptions(device, max_contexts, cuda_graph, trust_engines, allow_host_code, None, logits)
    checked = partial(_checked, folder, backend, threads, verify, precision, trusted_keys)
    opened = partial(open_engine, folder, backend, threads, precision, fallback)
    return _of_one_bundle(folder, lambda: _opened(checked, opened, gpu))


def _opened(checked: Callable[[], Checked], opened: Callable[[GpuOptions], Engine], gpu: GpuOptions) -> Model:
    manifest, signed = checked()
    if not gpu.logits:
        require_labels_alone(manifest)
    return model_of(manifest, opened(replace(gpu, signed=signed)))


def _of_one_bundle(folder: Path, opened: Callable[[], Model]) -> Model:
    """Open it again if it is replaced meanwhile: files are opened by name, and would be those of two bundles."""
    for _ in range(ATTEMPTS):
        before = stamp_of(folder / MANIFEST)
        try:
            model = opened()
        except UserError:
            if stamp_of(folder / MANIFEST) == before:
                raise
        else:
            if stamp_of(folder / MANIFEST) == before:
                return model
    raise UserError(
        f"{folder}: was replaced again and again while it was opened; run again when that has ended"
    )


def _checked(
    folder: Path,
    backend: str,
    threads: int | None,
    verify: bool,
    precision: str,
    trusted_keys: Sequence[str | Path | bytes] | None,
) -> Checked:
    """Check the files that may be opened, or with keys all and who signed them.

    Returns:
        The manifest, and the SHA-256 of the signed engines; None where signatures do not matter.
    """
    if trusted_keys is not None:
        if not verify:
            raise UserError("trusted_keys are of no use with verify=False: leave one of them out")
        bundle = check_bundle(folder, read_trusted(trusted_keys), engines=backend not in WITHOUT_ENGINES)
        return bundle.manifest, None if backend in WITHOUT_ENGINES else bundle.engines
    manifest = read_manifest(folder)
    if verify:
        verify_files(folder, _needed(folder, manifest, backend, threads, precision))
    return manifest, None


def _needed(folder: Path, manifest: Manifest, backend: str, threads: int | None, precision: str) -> Manifest:
    """The manifest reduced to the files that may be opened."""
    names: set[str] = set()
    # A bundle without a model of this precision may have an engine; where it has neither, `open_engine` raises.
    with suppress(UserError, KeyError):
        if backend in CPU:
            names = {CPU_MODELS[cpu_precision(folder, precision)]}
        elif backend in ORT_GPU:
            names = {model_file(folder, backend, precision).name}
        else:
            names = files_to_open(folder, manifest, threads, precision)
        names |= manifest.files.keys() - KNOWN  # a model may keep its weights there
    files = {name: entry for name, entry in manifest.files.items() if name in names}
    return msgspec.structs.replace(manifest, files=files)
