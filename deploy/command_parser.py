"""Parsers of commands, whose help ends with examples."""

import argparse
from typing import Any

EXAMPLES = {
    "build": (
        "edgedistill build runs/first/student.bundle",
        "edgedistill build runs/first/student.bundle --precision fp16 --backend tensorrt",
        "edgedistill build runs/first/student.bundle --sensitivity --max-drop 0.01 --redo",
    ),
    "card": ("edgedistill card runs/first",),
    "compare": ("edgedistill compare runs/seed-0 runs/seed-1 --out comparison",),
    "completion": (
        'eval "$(edgedistill completion bash)"      # in ~/.bashrc; zsh likewise in ~/.zshrc',
        "edgedistill completion fish > ~/.config/fish/completions/edgedistill.fish",
    ),
    "convert": ("edgedistill convert pspnet_r101-d8.pth pspnet.safetensors --classes classes.json",),
    "doctor": ("edgedistill doctor", "edgedistill doctor --json > doctor.json"),
    "evaluate": (
        "edgedistill evaluate runs/first my/new-images my/images-of-winter",
        "edgedistill evaluate runs/first camvid-cpu --split val --json",
    ),
    "info": ("edgedistill info runs/first/student.bundle",),
    "label": ("edgedistill label runs/one my/new-images --second runs/two --first 50 --out my/to-correct",),
    "lint": ("edgedistill lint runs/first/student.bundle --target tensorrt-10",),
    "masks": ("edgedistill masks my/data my/converted --map 255=1",),
    "measure": ("edgedistill measure runs/first/student.bundle --threads 1",),
    "predict": (
        "edgedistill predict runs/first photos 'more/*.png' --save mask,beside,json --resume",
        "edgedistill predict runs/first drive.mp4",
        "edgedistill predict runs/first 0 --frames 100         # a camera",
        "cat a.png | edgedistill predict runs/first -",
    ),
    "predict-raster": ("edgedistill predict-raster runs/first/student.bundle scene.tif water.tif",),
    "report": (
        "edgedistill report runs/first",
        "edgedistill report runs/seed-0 runs/seed-1 --out seeds.html",
    ),
    "serve": (
        "edgedistill serve runs/first",
        "curl --data-binary @photo.png 'http://127.0.0.1:8000/predict?format=overlay' -o overlay.png",
    ),
    "sbom": ("edgedistill sbom runs/first/student.bundle --out sbom.json",),
    "students": ("edgedistill students", "edgedistill students --ms 320x320 edge-small edge-medium"),
    "threshold": ("edgedistill threshold runs/first/student.bundle --temperature",),
    "tiles": ("edgedistill tiles my/scenes my/tiles --size 256 --stride 192",),
    "triton": (
        "edgedistill triton runs/first models",
        "edgedistill triton runs/first models --backend tensorrt --precision fp16",
    ),
    "verify": ("edgedistill verify runs/first/student.bundle --backend onnxruntime",),
}
"""Of each command, as they are typed in a shell."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose help ends with the examples of its command, the last word of `prog`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = EXAMPLES.get((self.prog or "?").split()[-1], ())

    def format_help(self) -> str:
        """The help with the examples, one a line."""
        lines = ["", "examples:", *(f"  {line}" for line in self.examples), ""] if self.examples else [""]
        return super().format_help() + "\n".join(lines)
