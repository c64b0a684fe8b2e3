"""Weights of networks of the package transformers: from safetensors only, and strictly except for heads."""

from typing import Any

import torch
from torch import nn

from deploy.errors import UserError
from teacher.external.hf_files import first_line, read_config, require_weights

HEADS = (
    *("decode_head.", "auxiliary_head.", "segmentation_head.", "class_predictor.", "head.", "neck.", "fpn"),
    "criterion.",
)
"""Beginnings of names of tensors that may be new: of heads, which depend on the classes, or on the task."""


def load_pretrained(family: Any, name: str, config: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """Load the weights of a network, strictly except for its head.

    Args:
        family: a class of transformers with `from_pretrained`.
        name: of the network.
        config: its configuration; may be for other classes than the weights.

    Returns:
        The network, and the names of those of its tensors that stayed new.

    Raises:
        UserError: there are no weights, they cannot be read, or tensors other than those of the head do not fit.
    """
    place = require_weights(name, read_config(name)[0])
    try:
        network, report = family.from_pretrained(
            place.name,
            config=config,
            local_files_only=place.local,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # of its fetchers and readers
        raise UserError(f"hf/{name}: its weights cannot be loaded ({first_line(error)})") from error
    other = {entry[0] if isinstance(entry, tuple) else entry for entry in report["mismatched_keys"]}
    new = sorted({*report["missing_keys"], *other})
    wrong = [key for key in new if not key.startswith(HEADS)]
    if wrong:
        raise UserError(
            f"hf/{name}: {len(wrong)} tensors are missing in its weights or do not fit, first {wrong[0]}"
        )
    return network, tuple(new)
