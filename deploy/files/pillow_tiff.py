"""Read TIFF files with Pillow alone, as on a device: only those whose stored numbers it does not change."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.files.decoding import quiet
from deploy.files.tiff_header import JPEG, WHITE_IS_ZERO, TiffHeader

_CODECS = (1, 2, 3, 4, 5, JPEG, 8, 32773, 32946, 34925, 50000)
_NO_EXTRA, _RGB, _YCBCR, _PALETTE, _GRAY = 0, 2, 6, 3, (0, 1)


def pillow_lacks(header: TiffHeader) -> str | None:
    """Why Pillow cannot give the stored numbers of a file; None if it can."""
    numbers = f"{header.samples} band(s) of {header.dtype}"
    if header.mask_page is not None:
        return "Pillow alone reads no internal masks"
    if header.compression not in _CODECS:
        return "Pillow alone lacks its codec"
    if header.sparse:
        return "Pillow alone reads no files with left out parts"
    if header.photometric in _GRAY and header.samples == 1:
        known = header.bits in (1, 2, 4, 8, 16, 32) and not (
            header.dtype == np.uint32 and header.photometric == 0
        )
        known = (
            known
            and header.dtype != np.float16
            and not (header.photometric == 0 and header.dtype.kind == "i")
        )
    elif header.photometric == _PALETTE:
        known = header.samples == 1 or (header.samples == 2 and header.alpha == 1)
    else:
        alpha = header.alpha is not None and not header.premultiplied
        known = header.bits == 8 and header.dtype == np.uint8 and not header.separate
        known = known and (
            (header.photometric in (_RGB, _YCBCR) and header.samples == 3 + alpha)
            or (header.photometric == 1 and header.samples == 2 and alpha)
        )
    return None if known else f"Pillow alone cannot read {numbers}"


def read_by_pillow(path: Path, header: TiffHeader) -> tuple[np.ndarray, None]:
    """The stored numbers H×W×S of a file for which `pillow_lacks` is None.

    Raises:
        Exception: of any type, where the file is damaged.
    """
    with quiet():  # Pillow reads EXIF and checks the size only when it loads
        image = Image.open(BytesIO(path.read_bytes()), formats=("TIFF",))
        turned = image.getexif().get(_ORIENTATION, 1)
        image.load()
    # Pillow turns TIFFs by their orientation. Masks have none, so images must stay as stored, too.
    array = np.array(image if turned not in _TURN_BACK else image.transpose(_TURN_BACK[turned]))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if image.mode == "L" and header.bits in (2, 4):  # Pillow scales them to 0..255
        array //= 255 // (2**header.bits - 1)
    if header.photometric == WHITE_IS_ZERO and header.bits <= 8:  # and inverts white-is-zero
        array = np.uint8(2**header.bits - 1) - array
    if array.dtype == np.int32 and header.dtype == np.uint32:
        array = array.view(np.uint32)
    elif array.dtype == np.uint8 and header.dtype == np.int8:
        array = array.view(np.int8)
    elif array.dtype == np.int32 and header.dtype.kind == "i":
        array = array.astype(header.dtype)
    return array if array.ndim == 3 else array[..., None], None


_ORIENTATION = 274
_TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What undoes Pillow's turning of a TIFF, by the orientation that the file states."""
