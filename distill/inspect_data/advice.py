"""A recommendation, as all of `distill.inspect_data` makes them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """One recommendation."""

    topic: str
    text: str
    """What was measured, and what follows."""
    fields: tuple[str, ...] = ()
    """Options of `edgedistill run` with their values."""
