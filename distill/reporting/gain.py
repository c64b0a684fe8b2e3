"""What a teacher gave: the distilled student against the same network trained alone."""

from collections.abc import Mapping

from deploy.evaluation.metric import Metric

BASELINE = "baseline"
STUDENTS = ("student", "student, QAT")
"""Names of the student's row, of which a report has one."""


def distillation_gain(scores: Mapping[str, float], metric: Metric) -> list[str]:
    """A line that compares student and baseline; none without both.

    Args:
        scores: of the networks of a report on its test images, by name.
        metric: of the scores.
    """
    student = next((scores[name] for name in STUDENTS if name in scores), None)
    alone = scores.get(BASELINE)
    if student is None or alone is None:
        return []
    gain, unit = metric.change(student - alone, decimals=2), "points" if metric.unit == "%" else metric.unit
    said = f"Distillation: {gain} {unit} of {metric.name} against the same network trained alone (one seed)"
    if student >= alone:
        return [said]
    return [
        f"{said}; it did not pay here: train longer, weaken it (--distill.weight), or train with --no-teacher"
    ]
