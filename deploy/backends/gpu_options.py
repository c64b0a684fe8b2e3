"""How an engine compiled for a GPU is opened."""

from dataclasses import dataclass

from deploy.errors import UserError

MAX_CONTEXTS = 4
"""Default of `GpuOptions.max_contexts`: two keep a GPU busy, more only share it, and each has buffers of its own."""


@dataclass(frozen=True)
class GpuOptions:
    """Options of the TensorRT backends; the defaults suit one GPU and engines that this user has built.

    Raises:
        UserError: a value is out of range.
    """

    device: int = 0
    """Number of the GPU among those that the driver shows; CUDA_VISIBLE_DEVICES limits and orders them."""
    max_contexts: int | None = None
    """Most calls that run at a time; the others wait. Each has memory of its own on the GPU. None: `MAX_CONTEXTS`."""
    cuda_graph: bool = False
    """Start the whole network in one call, which is faster for a small network."""
    trust_engines: bool = False
    """Load any engine beside the bundle. An engine is native code: only for a bundle whose origin is trusted."""
    allow_host_code: bool = False
    """Load engines that carry code for the CPU, as those built with `--version-compatible` do."""
    signed: frozenset[str] | None = None
    """SHA-256 of the engines that a trusted key has signed: only these are loaded. None: those that this user has built
    or trusted on this machine (`deploy.signing.trust_store`)."""
    logits: bool = True
    """Copy the logits back to the CPU, besides the labels."""
    eager: bool = False
    """TensorRT-RTX: compile the kernels for a batch size before its first run, which then takes longer, instead of in
    the background: for measurements."""

    def __post_init__(self) -> None:
        if self.device < 0:
            raise UserError(f"device {self.device}: GPUs are numbered from 0")
        if self.trust_engines and self.signed is not None:
            raise UserError(
                "trust_engines: with trusted_keys only signed engines are loaded; leave one of them out"
            )
        if self.max_contexts is not None and self.max_contexts < 1:
            raise UserError(
                f"max_contexts {self.max_contexts}: give at least 1, or leave it out for {MAX_CONTEXTS}"
            )

    def given(self) -> list[str]:
        """Names of the options that are not at their defaults."""
        return [name for name, value in vars(self).items() if value != getattr(type(self), name)]


DEFAULT = GpuOptions()
