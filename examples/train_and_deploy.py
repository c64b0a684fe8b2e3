"""Train a teacher and a student on built-in scenes, then run the student's bundle on an image, without torch.

    python examples/train_and_deploy.py [FOLDER]      # needs edgedistill[train]

The preset "smoke" takes two steps of every training: that shows the whole pipeline, and trains nothing useful. Continue
with "quick", or with "folder" and `**{"data.root": "my/images"}`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import edgedistill


def main(folder: str | Path = "runs/example", **changes: Any) -> dict[str, float]:
    """Train, export and verify in `folder`, and return the share of each class in one test image.

    Args:
        folder: receives checkpoints, bundles and the report.
        changes: further fields of the configuration, such as `seed=1` or `student_train={"steps": 10}`.
    """
    config = edgedistill.preset("smoke", out=folder, **changes)
    report = edgedistill.run(config)
    print(f"\nreport: {report}")

    model = edgedistill.load(config.out / "student.bundle")
    image = np.load(sorted((config.out / "samples").glob("*.npy"))[0])  # H×W×C in raw units
    result = model(image)
    seen = result.labels[result.valid]
    shares = {one.name: float((seen == label).mean()) for label, one in enumerate(model.classes)}
    print(f"{model.engine.name}, {result.timings.total_ms:.1f} ms:", shares)
    return shares


if __name__ == "__main__":
    main(*sys.argv[1:])
