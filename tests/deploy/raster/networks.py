"""A fully convolutional network that sees 3 pixels in each direction, for any size of image; and things to feed it."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from deploy.backends.onnxruntime_cpu import OrtEngine
from deploy.bundle.manifest import ClassInfo, InputSpec
from deploy.raster import ArraySink, ArraySource, Options, predict_raster
from deploy.raster.predict import blended, plan
from deploy.tasks.segmentation.model import SegmentationModel

TILE = 64
CLASSES = (ClassInfo("a", (255, 0, 0)), ClassInfo("b", (0, 255, 0)), ClassInfo("c", (0, 0, 255)))
SPEC = InputSpec(
    *(("VV", "VH"), TILE, TILE, "float32", "NCHW"),
    mean=(-12.0, -19.0),
    std=(4.0, 5.0),
    resize="tile",
    nodata="nan",
)


def conv_network(bias: float = 0.0) -> bytes:
    """ONNX: normalize, three 3×3 convolutions with zeros around, logits N×3×H×W at full size, arg-max."""
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 0.3, shape) for shape in ((6, 2, 3, 3), (6, 6, 3, 3), (3, 6, 3, 3))]
    constants = {
        "mean": np.reshape(SPEC.mean, (1, 2, 1, 1)),
        "std": np.reshape(SPEC.std, (1, 2, 1, 1)),
        "bias": np.full(3, bias),
        **{f"w{i}": one for i, one in enumerate(weights)},
    }
    nodes = [
        helper.make_node("Sub", ["image", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], ["x0"]),
        helper.make_node("Conv", ["x0", "w0"], ["y0"], pads=[1] * 4),
        helper.make_node("Relu", ["y0"], ["x1"]),
        helper.make_node("Conv", ["x1", "w1"], ["y1"], pads=[1] * 4),
        helper.make_node("Relu", ["y1"], ["x2"]),
        helper.make_node("Conv", ["x2", "w2", "bias"], ["logits"], pads=[1] * 4),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 2, "H", "W"])],
        [
            helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", "H", "W"]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, "H", "W"]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def conv_model(engine=None) -> SegmentationModel:
    return SegmentationModel(SPEC, CLASSES, engine or OrtEngine(conv_network(), threads=1))


class Counting:
    """An engine that counts the tiles it runs; it may fail, once, at one of them."""

    name, file = "counting", None

    def __init__(self, fail_at: int | None = None) -> None:
        self.engine = OrtEngine(conv_network(), threads=1)
        self.tiles, self.batches, self.fail_at = 0, [], fail_at

    def run(self, batch):
        self.tiles += len(batch)
        self.batches.append(len(batch))
        if self.fail_at is not None and self.tiles >= self.fail_at:
            raise RuntimeError("out of power")
        return self.engine.run(batch)


def sar(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal((-12, -19), (4, 5), (height, width, 2)).astype(np.float32)


def whole_logits(image: np.ndarray) -> np.ndarray:
    """Logits K×H×W of the network that sees the whole image at once."""
    return conv_model().engine.run(np.moveaxis(image, -1, 0)[None].copy())["logits"][0]


def raster_logits(model: SegmentationModel, image: np.ndarray, options: Options) -> np.ndarray:
    source = ArraySource(image)
    grid = plan(model, source, options)
    result = np.full((len(model.classes), *image.shape[:2]), np.nan, np.float32)
    for end, piece in blended(model, source, grid, options, range(grid.count)):
        where = end.piece
        result[:, where.top : where.bottom, where.block.begin : where.block.end] = piece.logits
    return result


def predict(
    image: np.ndarray, options: Options | None = None, model: SegmentationModel | None = None, nodata=None
) -> ArraySink:
    sink = ArraySink()
    predict_raster(model or conv_model(), ArraySource(image, nodata), sink, options)
    return sink


def write_tif(path: Path, image: np.ndarray, **profile: object) -> Path:
    """A GeoTIFF of H×W×C, by default in tiles of 64×64."""
    import rasterio

    shape = {
        "height": image.shape[0],
        "width": image.shape[1],
        "count": image.shape[2],
        "dtype": image.dtype.name,
    }
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}
    with rasterio.open(path, "w", driver="GTiff", **(shape | layout | place | profile)) as file:
        file.write(np.moveaxis(image, -1, 0))
    return path


def write_tif_of_points(path: Path, image: np.ndarray) -> Path:
    """A GeoTIFF whose place four ground control points tell, in geographic coordinates."""
    from rasterio.control import GroundControlPoint

    height, width = image.shape[:2]
    points = [
        GroundControlPoint(row, col, 10 + col / width, 50 - row / height)
        for row in (0, height)
        for col in (0, width)
    ]
    return write_tif(path, image, crs="EPSG:4326", transform=None, gcps=points)
