"""Pictures of plots."""

import pytest

from deploy.errors import UserError
from deploy.files.images import read_image
from distill.reporting import figures


@pytest.mark.parametrize(("count", "size"), [(1, (550, 440)), (3, (1650, 440)), (4, (1650, 880))])
def test_panels_are_in_rows_of_three(tmp_path, count, size):
    figure, axes = figures.panels(count)
    assert len(axes) == len(figure.axes) == count
    axes[-1].plot([0, 1])
    figures.save(figure, tmp_path / "plot.png")
    image = read_image(tmp_path / "plot.png")
    assert image.shape == (size[1], size[0], 3)
    assert image.min() < 255  # something is drawn


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    figures.require_matplotlib("compare")
    monkeypatch.setattr(figures, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"compare draws with matplotlib: pip install 'edgedistill\[bench\]'"):
        figures.require_matplotlib("compare")
