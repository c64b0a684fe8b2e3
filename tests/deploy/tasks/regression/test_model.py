"""A regression model at the size of its image, with no-data pixels; its files, pictures and words."""

import numpy as np
import pytest

from deploy.bundle.manifest import InputSpec
from deploy.files.images import read_image
from deploy.tasks.regression.labeled import read_map
from deploy.tasks.regression.levels import LEVELS, level_edges
from deploy.tasks.regression.model import RegressionModel
from deploy.tasks.regression.task import REGRESSION
from deploy.tasks.task import Predicted

SPEC = InputSpec(("x",), 4, 6, "float32", "NCHW", mean=(0.0,), std=(1.0,), nodata="nan")
EDGES = level_edges(2.0, 1.0)


class Doubling:
    """Returns twice the image as the map."""

    name = "doubling"
    file = None

    def run(self, batch):
        values = 2 * batch
        labels = (values[:, 0, :, :, None] >= EDGES).sum(-1).astype(np.uint8)
        return {"labels": labels, "logits": values.astype(np.float32)}


MODEL = RegressionModel(SPEC, LEVELS, Doubling())


def test_values_and_levels_of_an_image():
    image = np.linspace(0, 2, 24, dtype=np.float32).reshape(4, 6)
    result = MODEL(image)
    np.testing.assert_array_equal(result.values, 2 * image)
    np.testing.assert_array_equal(result.labels, np.searchsorted(EDGES, result.values, side="right"))
    assert result.valid.all()


def test_the_map_has_the_size_of_the_image_and_no_data_is_nan():
    image = np.ones((8, 12, 1), np.float32)
    image[:2, :3] = np.nan
    result = MODEL(image)
    assert result.values.shape == result.labels.shape == (8, 12)
    np.testing.assert_array_equal(np.isnan(result.values), ~result.valid)
    assert (result.labels[:2, :3] == 255).all()
    assert result.values[5, 5] == pytest.approx(2.0)


def test_a_batch_is_its_images():
    images = [np.full((4, 6), value, np.float32) for value in (0.5, 1.5)]
    batch = MODEL(images)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(batch.values[index], MODEL(image).values)


def test_levels_cover_the_mean_by_two_deviations():
    assert pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]) == EDGES
    assert len(EDGES) == len(LEVELS) - 1


def test_saved_files_words_and_panels(tmp_path):
    image = np.linspace(0, 2, 24, dtype=np.float32).reshape(4, 6, 1)
    result = MODEL(image)
    for name in REGRESSION.usual:
        REGRESSION.formats[name](Predicted(tmp_path / "a", image, result, LEVELS))
    np.testing.assert_array_equal(read_map(tmp_path / "a_values.npy", (4, 6)), result.values)
    assert read_image(tmp_path / "a_overlay.png").shape[0] >= 4
    assert REGRESSION.words(result, LEVELS) == "values 0 to 4, mean 2"
    truth = np.where(np.arange(24).reshape(4, 6) == 3, np.nan, 2 * image[..., 0])
    panels = REGRESSION.panels(image, truth, [result], LEVELS)
    assert [panel.shape for panel in panels] == [(4, 6, 3)] * 3
    assert (panels[1].reshape(-1, 3)[3] == 0).all()  # unknown
    assert (panels[2][-1, -1] == 255).all()  # the highest value


def test_a_constant_truth_has_panels():
    image = np.full((4, 6, 1), 9.0, np.float32)
    panels = REGRESSION.panels(image, np.full((4, 6), 3.0), [MODEL(image)], LEVELS)
    assert (panels[1].max(), panels[2].min()) == (0, 255)


def test_no_data_at_all_has_words():
    assert REGRESSION.words(MODEL(np.full((4, 6), np.nan, np.float32)), LEVELS) == "no data"
