"""Images of Cornell as published: rectangles, colors, and depth as an image or a point cloud."""

from pathlib import Path

import numpy as np

from deploy.files.images import write_png
from distill.data.grasp.cornell import CornellReader, find_items
from tests.distill.data.grasp.grasp_files import write_tiff

RECTANGLE = "253 319.7\n309 324\n307 350\n251 345.7\n"
"""As Cornell's files have them: not quite a rectangle, its first edge along the opening."""
NAN = "NaN NaN\nNaN NaN\n10 20\n30 40\n"


def make_cornell(root: Path, count=4, cloud=False) -> None:
    """`count` images in two folders, two images of each object."""
    (root / "backgrounds").mkdir(parents=True)
    write_png(root / "backgrounds" / "pcdb0002r.png", np.zeros((480, 640, 3), np.uint8))
    lines = []
    for index in range(count):
        folder = root / f"{index % 2 + 1:02d}"
        folder.mkdir(exist_ok=True)
        stem = folder / f"pcd{index + 100:04d}"
        color = np.full((480, 640, 3), index, np.uint8)
        write_png(f"{stem}r.png", color)
        Path(f"{stem}cpos.txt").write_text(RECTANGLE + NAN, encoding="utf-8")
        Path(f"{stem}cneg.txt").write_text(RECTANGLE, encoding="utf-8")
        if cloud:
            write_cloud(Path(f"{stem}.txt"), ["300 400 0 0 0", "0 0 -1200 1e-38 641", "nan nan nan 0 5"])
        else:
            write_tiff(Path(f"{stem}d.tiff"), np.full((480, 640), 0.5 + index / 10))
        lines.append(f"{index + 100:04d} {index // 2} thing\n")
    (root / "processedData").mkdir()
    (root / "processedData" / "z.txt").write_text("".join(lines))


def write_cloud(path: Path, points: list[str]) -> None:
    path.write_text(
        "# .PCD v.7 - Point Cloud Data file format\nFIELDS x y z rgb index\nSIZE 4 4 4 4 4\nTYPE F F F F U\n"
        f"COUNT 1 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        "DATA ascii\n" + "\n".join(points) + "\n",
        encoding="utf-8",
    )


def cornell(root: Path, channels="depth", crop=0) -> CornellReader:
    return CornellReader(find_items(root), channels, crop)
