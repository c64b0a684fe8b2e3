"""What the results of all tasks can do in Python: be saved, shown and listed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import UserError


class OneResult(ABC):
    """Methods for the result of one image; that of a batch is refused, as a file or a picture is of one."""

    labels: np.ndarray
    """H×W, or N×H×W of a batch."""

    def save(self, path: str | Path, image: np.ndarray | str | Path | None = None) -> Path:
        """Write the result as the suffix of the file says; `save` of the class in question names those there are.

        Args:
            path: the file.
            image: the image H×W×C, or its file, to draw the result over.

        Raises:
            UserError: there is no such kind of file, the image is of another size, or the result is of a batch.
        """
        path = Path(path)
        picture, writers = self._image_for("save", image), self._writers()
        if path.suffix.lower() not in writers:
            raise UserError(f"{path}: a result is saved as {' or '.join(writers)}; give a name that ends so")
        writers[path.suffix.lower()](path, picture)
        return path

    def show(self, image: np.ndarray | str | Path | None = None) -> None:
        """Open what `save` draws, in the viewer of this system."""
        from PIL import Image  # start-up time: most programs draw nothing

        Image.fromarray(self._drawn(self._image_for("show", image))).show()

    def to_pandas(self) -> Any:
        """A data frame of `rows`."""
        rows = self.rows()
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError(f"to_pandas needs pandas ({error}): pip install pandas") from error
        return pd.DataFrame(rows)

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The result as a table, for JSON."""

    @abstractmethod
    def _drawn(self, image: np.ndarray | None) -> np.ndarray:
        """The result of one image as RGB uint8, over the image H×W×C if there is one."""

    @abstractmethod
    def _writers(self) -> Mapping[str, Callable[[Path, np.ndarray | None], object]]:
        """What writes a file, by its suffix, and is given the image H×W×C or None."""

    def _require_one(self, what: str) -> None:
        size = self.labels.shape
        if len(size) > 2:
            raise UserError(
                f"{what}: this is the result of {size[0]} images; take each of model.batch(images)"
            )

    def _image_for(self, what: str, image: np.ndarray | str | Path | None) -> np.ndarray | None:
        """The image of the result H×W×C, read if its file was given."""
        self._require_one(what)
        if image is None:
            return None
        if isinstance(image, str | Path):
            from deploy.files.images import read_image  # start-up time: decoders

            image = read_image(image)
        if image.shape[:2] != self.labels.shape:
            found, wanted = (f"{height}×{width}" for height, width in (image.shape[:2], self.labels.shape))
            raise UserError(
                f"{what}: the image is {found}, the result {wanted}; give the image that was predicted"
            )
        return image if image.ndim == 3 else image[..., None]
