"""Whether a DLA can run a whole network, without a GPU beside it."""

from pathlib import Path

from deploy.lint.dla import layers
from deploy.lint.reading import read_graph

SHOWN = 5


def not_alone(path: Path) -> str:
    """Why a DLA cannot run an ONNX file alone, in one line: operators that it does not have; "" if it can.

    Raises:
        UserError: as `read_graph`.
    """
    found = list(layers(read_graph(path.read_bytes(), path.parent), "dla"))
    shown = "; ".join(f"{one.where}: {one.message.partition(', so it runs')[0]}" for one in found[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{path.name} has {len(found)} operators that no DLA runs ({shown}{more})" if found else ""
