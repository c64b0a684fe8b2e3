"""What a network does with raw pixels before it normalizes them (`--data.scale`), once for numpy, torch and the graph.

    linear      x
    log         ln(max(x, floor))
    percentile  min(max(x, low), high)

The numbers are in raw units, one per channel; mean and deviation of the normalization are of the result. All of it is
in the exported graph, so whatever is outside of it (files, resizing, tiles, what fills pixels without data) is raw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

ScaleName = Literal["linear", "log", "percentile"]
Numbers = tuple[float, ...]
Range = tuple[float, float]

LARGEST = 1e30
"""Of a number of a manifest; finite in float32, too."""


@dataclass(frozen=True)
class PixelScale:
    """A scale with its numbers, as manifests, statistics and checkpoints hold them; linear where both are None."""

    log_floor: Numbers | None = None
    """Of each channel: the logarithm is of values of at least this."""
    clip: tuple[Range, ...] | None = None
    """Low and high of each channel."""

    @property
    def name(self) -> ScaleName:
        """As `--data.scale` has it."""
        if self.log_floor is not None:
            return "log"
        return "linear" if self.clip is None else "percentile"

    @property
    def bounds(self) -> tuple[Numbers | None, Numbers | None]:
        """The least and the largest value of each channel that are told from those beyond, raw; None: no such bound."""
        if self.clip is None:
            return self.log_floor, None
        return tuple(low for low, _ in self.clip), tuple(high for _, high in self.clip)

    @property
    def limits(self) -> tuple[Range, ...]:
        """Range of each channel after scaling; empty for linear, which has none."""
        if self.log_floor is not None:
            return tuple((math.log(floor), math.log(LARGEST)) for floor in self.log_floor)
        return self.clip or ()

    def scaled(self, image: Any, bounds: tuple[Any, Any], arrays: Any) -> Any:
        """Scale an image; NaN remains NaN.

        Args:
            image: floating point, in raw units.
            bounds: `self.bounds` as arrays of the same type, which broadcast to the image.
            arrays: numpy or torch.
        """
        low, high = bounds
        if low is not None:
            image = arrays.maximum(image, low)
        if high is not None:
            image = arrays.minimum(image, high)
        return image if self.log_floor is None else arrays.log(image)

    def raw(self, values: Any, arrays: Any) -> Any:
        """The raw pixels of scaled ones that are within `limits`, numbers or arrays; `arrays` has their `exp`."""
        return values if self.log_floor is None else arrays.exp(values)

    def words(self, channels: slice = slice(None)) -> str:
        """What follows "mean … and deviation …": of what they are; empty for linear."""
        low, high = (" ".join(f"{one:g}" for one in (bound or ())[channels]) for bound in self.bounds)
        return {
            "linear": "",
            "log": f" of ln x, where x is at least {low}",
            "percentile": f" of x held between {low} and {high}",
        }[self.name]


LINEAR = PixelScale()


def check_numbers(scale: PixelScale, channels: Sequence[str], mean: Sequence[float]) -> None:
    """Raise `ValueError` for numbers that cannot be.

    Args:
        scale: any.
        channels: their names.
        mean: of each channel, of scaled pixels.
    """
    if scale.log_floor is not None and scale.clip is not None:
        raise ValueError("log_floor and clip exclude each other")
    if scale.log_floor is not None:
        _check_count("log_floor", scale.log_floor, channels)
        if not all(0 < floor < math.inf for floor in scale.log_floor):
            raise ValueError(f"log_floor {scale.log_floor} is not positive and finite")
    if scale.clip is not None:
        _check_count("clip", scale.clip, channels)
        if not all(-math.inf < low <= high < math.inf for low, high in scale.clip):
            raise ValueError(f"clip {scale.clip} is not a finite low and high of each channel")
    for place, (low, high) in enumerate(scale.limits):
        rounding = _ROUNDING * max(abs(low), abs(high))
        if not low - rounding <= mean[place] <= high + rounding:
            words = scale.words(slice(place, place + 1))
            raise ValueError(f"mean {mean[place]} of {channels[place]} is no mean{words}")


_ROUNDING = 1e-5


def _check_count(field: str, values: Sequence[Any], channels: Sequence[str]) -> None:
    if len(values) != len(channels):
        raise ValueError(f"{len(channels)} channels and {len(values)} {field}s do not match")
