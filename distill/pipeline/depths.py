"""How many residual blocks the stages of an EdgeNet have where `ModelConfig.depths` is open."""

from dataclasses import replace

from distill.config import ModelConfig, RunConfig
from distill.run_folder import stored_settings
from student.edge import DEPTHS, FORMER_DEPTHS, depths_of
from student.zoo import has_option
from teacher.weights import read_state


def with_depths(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Decide on the depths of teacher and student.

    A run that is resumed keeps its own, and a network that starts from weights has theirs.

    Args:
        config: configuration of the run.

    Returns:
        The configuration without open `depths`, and lines to print.

    Raises:
        UserError: the record of the run or a weights file cannot be read, or no network has the name.
    """
    stored = stored_settings(config)
    lines: list[str] = []
    for name in ("teacher", "student"):
        model: ModelConfig = getattr(config, name)
        if model.depths is not None:
            continue
        depths = tuple(stored.get(f"{name}.depths") or _depths_of_weights(model) or DEPTHS)
        if depths == FORMER_DEPTHS:
            source = "as this run was started" if stored else f"as in {model.weights}"
            lines.append(f"depths: {name} {model.arch} has two residual blocks a stage, {source}")
        config = replace(config, **{name: replace(model, depths=depths)})
    return config, lines


def _depths_of_weights(model: ModelConfig) -> tuple[int, ...] | None:
    """The depths of the EdgeNet in a weights file; None without one, or where the file holds another network."""
    if model.weights is None or not has_option(model.arch, "depths"):
        return None
    return depths_of(read_state(model.weights))
