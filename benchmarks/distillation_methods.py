"""The methods that `benchmarks/distillation.py` compares, as changes of a preset."""

from dataclasses import replace

from distill.config import DistillConfig, RunConfig

BASELINE = "no teacher"
OWN = "the preset's"
TWO = "KL, two teachers"
PLAIN = "KL, teacher sees plain colors"
"""In every step, on the student's crops without the jitter of their colors."""
METHODS: dict[str, dict[str, object]] = {
    OWN: {},
    "weights and KL": {"loss": "kl(t=2)", "trust": "everywhere", "start": "teacher"},
    "weights and KL in every step": {
        "loss": "kl(t=2)",
        "trust": "everywhere",
        "start": "teacher",
        "views": 0,
    },
    "weights alone": {"weight": 0.0, "start": "teacher"},
    "KL": {"loss": "kl(t=2)", "trust": "everywhere"},
    "KL, label-aware": {"loss": "kl(t=2)", "trust": "label"},
    "KL, fading": {"loss": "kl(t=2)", "trust": "everywhere", "schedule": "cosine"},
    "KL, teacher in every step": {"loss": "kl(t=2)", "trust": "everywhere", "views": 0},
    "KL, on aux head too": {"loss": "kl(t=2)", "trust": "everywhere", "aux": "0.4*kl(t=2)"},
    "KL, EMA": {"loss": "kl(t=2)", "trust": "everywhere"},
    "EMA alone": {"weight": 0.0},
    "hard labels": {"loss": "hard", "trust": "everywhere"},
    "CWD": {"loss": "kl(t=1) + 3*cwd(t=4)", "trust": "everywhere"},
    "MSE": {"loss": "0.1*mse", "trust": "everywhere"},
    "DIST": {"loss": "dist", "trust": "everywhere"},
    "Jaccard": {"loss": "jaccard", "trust": "everywhere"},
    "boundary-aware": {"loss": "boundary(t=2)", "trust": "everywhere"},
    "FitNet": {"loss": "kl(t=1) + 0.1*feature(layer4)", "trust": "everywhere"},
    "cosine of features": {
        "loss": "kl(t=1) + cosine(layer3) + cosine(layer4)",
        "trust": "everywhere",
    },
    "attention": {"loss": "kl(t=1) + 10*at(layer4)", "trust": "everywhere"},
    "SKD": {"loss": "kl(t=1) + 10*skd(layer4)", "trust": "everywhere"},
    "IFVD": {"loss": "kl(t=1) + 10*ifvd(layer4)", "trust": "everywhere"},
    "CIRKD": {"loss": "kl(t=1) + cirkd(head)", "trust": "everywhere"},
    TWO: {"loss": "kl(t=2)", "trust": "everywhere"},
    PLAIN: {"loss": "kl(t=2)", "trust": "everywhere", "views": 0},
}
"""Fields of `DistillConfig` that define each method, on top of the preset's. Only methods with `start` "teacher" start
from the teacher's weights, and only those with a `schedule` fade."""
TRAINING: dict[str, dict[str, float]] = {"KL, EMA": {"ema": 0.99}, "EMA alone": {"ema": 0.99}}
"""Fields of the student's `TrainConfig` that a method changes."""
SECOND = "second-teacher"
"""Folder of the other teacher of `TWO`."""


def method(name: str, preset: RunConfig) -> RunConfig:
    """The configuration of a method.

    Args:
        name: a name of `METHODS`, or a loss expression.
        preset: what it changes.
    """
    if name == OWN:
        return preset
    fields: dict[str, object] = {"start": "own", "schedule": "constant", **METHODS.get(name, {"loss": name})}
    if name == TWO:
        fields["teachers"] = (*preset.distill.teachers, preset.out / SECOND / "best.safetensors")
    distill: DistillConfig = replace(preset.distill, **fields)  # pyright: ignore[reportArgumentType]
    training = replace(preset.student_train, **TRAINING.get(name, {}))  # pyright: ignore[reportArgumentType]
    return replace(preset, distill=distill, student_train=training)
