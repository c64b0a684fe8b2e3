"""The layouts of `edge` students that `benchmarks/design.py` compares."""

from dataclasses import dataclass

from deploy.errors import UserError
from student.edge import DEPTHS, EdgeNet


@dataclass(frozen=True)
class Layout:
    """A layout; the fields are options of `student.edge.EdgeNet`."""

    width: int
    depths: tuple[int, ...] = DEPTHS
    stride: int = 32
    channels: int | None = None
    """Channels of the decoder; None = those that the network takes by default."""
    convolutions: int = 2
    output_stride: int = 8

    @property
    def name(self) -> str:
        """Short text, such as `w24 1-1-1-1 s32 2×48 to 8`: width, depths, last stride, decoder, output's stride."""
        depths = "-".join(map(str, self.depths))
        return f"w{self.width} {depths} s{self.stride} {self.convolutions}×{self._channels} to {self.output_stride}"

    @property
    def slug(self) -> str:
        """The name for a folder."""
        return self.name.replace(" ", "-").replace("×", "x")

    def network(self, in_channels: int, num_outputs: int, dropout: float = 0.1) -> EdgeNet:
        """A new network of this layout."""
        return EdgeNet(
            in_channels,
            num_outputs,
            width=self.width,
            dropout=dropout,
            output_stride=self.output_stride,
            depths=self.depths,
            stride=self.stride,
            channels=self._channels,
            convolutions=self.convolutions,
        )

    @property
    def _channels(self) -> int:
        return 2 * self.width if self.channels is None else self.channels


LAYOUTS = (
    Layout(24),
    Layout(16),
    Layout(32),
    Layout(20),
    Layout(24, convolutions=1),
    Layout(24, channels=24),
    Layout(16, convolutions=1),
    Layout(24, stride=16),
    Layout(24, channels=24, output_stride=4),
    Layout(16, (2, 2, 2, 2)),
    Layout(24, (2, 2, 2, 2)),
    Layout(32, (2, 2, 2, 2)),
    Layout(24, (1, 2, 3, 2)),
    Layout(16, (1, 2, 4, 1)),
    Layout(24, (1, 2, 4, 1)),
)
"""The listed sizes first, then one change after another."""


def layouts(names: list[str]) -> tuple[Layout, ...]:
    """Those of `LAYOUTS` with these names; all of them if there are no names.

    Raises:
        UserError: no layout has this name.
    """
    known = {layout.name: layout for layout in LAYOUTS}
    for name in names:
        if name not in known:
            raise UserError(f"--layouts {name!r}: no such layout; known: {', '.join(map(repr, known))}")
    return tuple(known[name] for name in names) or LAYOUTS
