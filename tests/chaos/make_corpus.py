"""Write the corpus of `test_corpus.py`: `python -m tests.chaos.make_corpus`.

One small file of every kind that is read: each way in which an image or a mask may be stored, manifests of each kind of
bundle, `classes.json`, and losses. A file that a fuzzer found to be read wrongly is added here, by the code that makes
it or, where no code does, as it is.
"""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

CORPUS = Path(__file__).parent / "corpus"
COLORS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
GRAY = COLORS[..., 0]
IDS = (np.indices((9, 13)).sum(0) % 3).astype(np.uint8)
REAL = COLORS.astype(np.float32) / 7 - 9


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as Pillow writes it."""
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def palette() -> Image.Image:
    """Ids as indices of a palette."""
    image = Image.fromarray(IDS).convert("P")
    image.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30])
    return image


def pictures() -> dict[str, bytes]:
    """PNG, JPEG, WebP and BMP."""
    colors, gray = Image.fromarray(COLORS), Image.fromarray(GRAY)
    alpha = colors.copy()
    alpha.putalpha(gray)
    return {
        "rgb.png": encoded(colors, "PNG"),
        "gray.png": encoded(gray, "PNG"),
        "bits.png": encoded(gray.convert("1"), "PNG"),
        "palette.png": encoded(palette(), "PNG", transparency=0),
        "alpha.png": encoded(alpha, "PNG"),
        "sixteen.png": encoded(Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG"),
        "text.png": encoded(colors, "PNG", dpi=(72, 72), icc_profile=b"not a profile"),
        "rgb.jpg": encoded(colors, "JPEG", quality=80),
        "progressive.jpg": encoded(colors, "JPEG", progressive=True, exif=Image.Exif()),
        "gray.jpg": encoded(gray, "JPEG"),
        "cmyk.jpg": encoded(colors.convert("CMYK"), "JPEG"),
        "lossy.webp": encoded(colors, "WEBP"),
        "lossless.webp": encoded(alpha, "WEBP", lossless=True),
        "frames.webp": encoded(colors, "WEBP", save_all=True, append_images=[colors.rotate(180)]),
        "rgb.bmp": encoded(colors, "BMP"),
        "palette.bmp": encoded(palette(), "BMP"),
    }


def tiffs() -> dict[str, bytes]:
    """TIFFs of the kinds that `deploy.files.tiff` tells apart."""

    def tiff(array: np.ndarray, **options: object) -> bytes:
        out = io.BytesIO()
        keys = ("bigtiff", "byteorder")
        with tifffile.TiffWriter(out, **{key: options.pop(key) for key in keys if key in options}) as file:
            file.write(array, metadata=None, **options)
        return out.getvalue()

    nodata = [(42113, "s", 0, "-9", True)]
    scaled = [
        (
            42112,
            "s",
            0,
            '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.5</Item></GDALMetadata>',
            True,
        )
    ]
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as file:
        file.write(GRAY, metadata=None)
        file.write(GRAY, metadata=None)
    return {
        "rgb.tif": tiff(COLORS, photometric="rgb"),
        "gray.tif": tiff(GRAY, photometric="minisblack"),
        "white.tif": tiff(GRAY, photometric="miniswhite"),
        "real.tif": tiff(REAL[..., 0], photometric="minisblack", extratags=nodata),
        "scaled.tif": tiff(GRAY.astype(np.int16), photometric="minisblack", extratags=scaled),
        "planes.tif": tiff(np.moveaxis(REAL, 2, 0), photometric="minisblack", planarconfig="separate"),
        "tiles.tif": tiff(COLORS, photometric="rgb", tile=(16, 16), compression="zlib"),
        "predicted.tif": tiff(
            GRAY, photometric="minisblack", compression="zlib", predictor=True, rowsperstrip=2
        ),
        "big.tif": tiff(GRAY, photometric="minisblack", bigtiff=True),
        "motorola.tif": tiff(GRAY.astype(np.uint16), photometric="minisblack", byteorder=">"),
        "palette.tif": tiff(IDS, photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
        "pages.tif": pages.getvalue(),
    }


def arrays() -> dict[str, bytes]:
    """`.npy` files, and what is only called so."""

    def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
        out = io.BytesIO()
        np.lib.format.write_array(out, array, version=version)
        return out.getvalue()

    zipped = io.BytesIO()
    np.savez(zipped, GRAY)
    return {
        "rgb.npy": npy(COLORS),
        "real.npy": npy(REAL),
        "planes.npy": npy(np.ascontiguousarray(np.moveaxis(REAL, 2, 0))),
        "fortran.npy": npy(np.asfortranarray(IDS)),
        "motorola.npy": npy(IDS.astype(">u2")),
        "version2.npy": npy(IDS, (2, 0)),
        "bool.npy": npy(IDS > 0),
        "object.npy": npy(np.array([1, "a", None], object)),
        "zipped.npy": zipped.getvalue(),
        "pickle.npy": pickle.dumps([1, 2], protocol=4),
        "huge.npy": npy(IDS).replace(b"(9, 13), }" + b" " * 10, b"(9, 130000000000), }"),
    }


CLASSES = {
    "names.json": ["water", "land"],
    "long.json": {
        "classes": [
            {"name": "water", "color": [0, 0, 255], "value": 7},
            {"name": "land", "color": [9, 9, 9], "value": 255},
        ],
        "ignore": 0,
        "channels": ["VV", "VH"],
    },
    "odd.json": [{"name": "[/red]\u001b[2J", "color": [0, 0, 0]}, "a\nb"],
}
LOSSES = (
    "ce + 0.5*dice", "ce(smoothing=0.1) + lovasz", "2*focal(gamma=2) + boundary", "kl(t=2) + 0.1*feature(layer4)",
    "-1*ce", "ce + ", "kl(t=1e308*10)", "ce((((1", "0*ce", "nan*ce", "cë + dice",
)  # fmt: skip


def main() -> None:
    """Write all files."""
    files = {f"images/{name}": data for name, data in (pictures() | tiffs() | arrays()).items()}
    files |= {f"classes/{name}": json.dumps(value).encode() for name, value in CLASSES.items()}
    files["losses.txt"] = "\n".join(LOSSES).encode()
    for name, data in files.items():
        (CORPUS / name).parent.mkdir(parents=True, exist_ok=True)
        (CORPUS / name).write_bytes(data)


if __name__ == "__main__":
    main()
