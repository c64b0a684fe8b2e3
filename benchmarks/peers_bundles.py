"""The bundles that `benchmarks/peers.py` times: networks of this package and of others, untrained, in fp32 and INT8."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from benchmarks.accuracy_training import slug
from benchmarks.networks import Candidate, candidates, color_spec, models_of, settled
from deploy.backends.engine import CPU_MODELS
from deploy.bundle.bundle_files import write_bundle
from deploy.bundle.manifest import ClassInfo, InputSpec, Manifest, OutputSpec
from deploy.errors import UserError
from deploy.files.atomic import write_json
from teacher.pspnet import Output

INDEX = "networks.json"
PEAK = "dense 3×3 convolutions"
"""The network whose speed is taken for the machine's peak."""
PEAK_CHANNELS, PEAK_LAYERS, PEAK_STRIDE = 256, 8, 8


@dataclass(frozen=True)
class Entry:
    """A network in the index of a folder of bundles."""

    name: str
    bundle: str
    """Its folder, beside the index."""
    parameters: int
    """As deployed: without auxiliary heads, branches folded."""
    macs: int
    """Multiply-accumulates of one image."""


@dataclass(frozen=True)
class Index:
    """The networks in a folder, and what they were exported for."""

    size: int
    """Height and width of the image."""
    classes: int
    alone: bool
    """Labels are at the stride of the scores, not upsampled."""
    networks: tuple[Entry, ...]


class Dense(nn.Module):
    """Wide 3×3 convolutions at one resolution, which keep a machine's arithmetic units as busy as a network can.

    Args:
        classes: output maps.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, PEAK_CHANNELS, PEAK_STRIDE, PEAK_STRIDE)
        self.layers = nn.Sequential(
            *(
                layer
                for _ in range(PEAK_LAYERS)
                for layer in (nn.Conv2d(PEAK_CHANNELS, PEAK_CHANNELS, 3, padding=1), nn.ReLU())
            )
        )
        self.classifier = nn.Conv2d(PEAK_CHANNELS, classes, 1)

    def forward(self, x: Tensor) -> Output:
        """Logits N×K×⌊H/8⌋×⌊W/8⌋."""
        return Output(self.classifier(self.layers(self.stem(x))), None)


def own_stride_head(scores: Tensor, enlarged: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The end of a graph without upsampling: labels at the stride of the scores. See `distill.tasks.task.Head`."""
    return scores.argmax(1).to(torch.uint8), scores


def export_all(names: Sequence[str], folder: Path, size: int, classes: int, alone: bool = False) -> Index:
    """Build each network with new weights and write its bundle, with both precisions.

    Args:
        names: of this package (options after a colon) or peers, whose packages must be installed.
        folder: where the bundles and their index go.
        size: height and width of the image.
        classes: number of classes.
        alone: end with labels at the stride of the scores, which cost next to nothing, instead of upsampled ones.
    """
    spec = color_spec(size)
    entries = []
    for name in (PEAK, *names):
        print(f"exporting {name}", flush=True)
        one = _candidate(name, classes)
        one = replace(one, head=own_stride_head) if alone else one
        _write(folder / slug(name), one, spec, classes)
        entries.append(Entry(name, slug(name), one.parameters, one.macs(size)))
    index = Index(size, classes, alone, tuple(entries))
    write_json(folder / INDEX, asdict(index))
    return index


def read_index(folder: Path, names: Sequence[str] = ()) -> Index:
    """The networks that an earlier `export_all` left in a folder.

    Args:
        folder: the folder.
        names: those to return beside `PEAK`; none = all.

    Raises:
        UserError: there is no index, or it lacks one of the names.
    """
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{folder / INDEX}: cannot be read ({error}); run without --again") from error
    lacking = sorted({*names} - {entry.name for entry in index.networks})
    if lacking:
        raise UserError(f"{folder / INDEX}: has no {', '.join(lacking)}; run without --again")
    wanted = (entry for entry in index.networks if not names or entry.name in (PEAK, *names))
    return replace(index, networks=tuple(wanted))


def _candidate(name: str, classes: int) -> Candidate:
    torch.manual_seed(0)
    if name == PEAK:
        return Candidate(name, settled(Dense(classes)))
    return candidates([name], classes)[0]


def _write(folder: Path, one: Candidate, spec: InputSpec, classes: int) -> None:
    outputs = (
        OutputSpec("labels", "uint8", ("batch", spec.height, spec.width), "class id of each pixel"),
        OutputSpec("logits", "float32", ("batch", classes, "h", "w"), "class scores before softmax"),
    )
    infos = tuple(ClassInfo(f"class {number}", (number, number, number)) for number in range(classes))
    manifest = Manifest(name=folder.name, classes=infos, input=spec, outputs=outputs)
    models = models_of(one, spec)
    files = {CPU_MODELS[precision]: model for precision, model in models.items()}
    write_bundle(folder, manifest, files, {CPU_MODELS[precision]: precision for precision in models})
