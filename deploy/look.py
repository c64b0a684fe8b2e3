"""How results are drawn."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """Options of every drawing."""

    legend: bool = True
    """Add the classes in the picture and their shares, where there are classes."""
    opacity: float = 0.5
    """Weight of the class colors, from 0 to 1."""
