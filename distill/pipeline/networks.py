"""The networks of a run, new or from weights."""

from torch import nn

from distill.config import ModelConfig, RunConfig
from distill.data.splits import Splits
from distill.tasks.task import TrainingTask
from student.edge import DEPTHS
from student.zoo import build_network
from teacher.weights import load_weights


def new_network(config: RunConfig, model: ModelConfig, splits: Splits, task: TrainingTask) -> nn.Module:
    """Build the network of a model configuration for a data set, and load its weights file if it has one.

    Args:
        config: configuration of the run.
        model: the network's part of it; an open `detail` counts as False and open `depths` as the
            default; `prepare` has decided on both before.
        splits: the data set.
        task: what the network is for.

    Raises:
        UserError: no such network or option, or weights that do not fit.
    """
    channels = len(splits.channels)
    network = build_network(
        model.arch,
        channels,
        task.outputs,
        output_stride=model.output_stride,
        detail=bool(model.detail),
        head_channels=model.head_channels,
        dropout=model.dropout,
        aux=config.loss.aux > 0,
        pretrained=model.pretrained,
        align_corners=model.align_corners,
        contract_dilation=model.contract_dilation,
        depths=model.depths or DEPTHS,
        head=model.head,
    )
    if model.weights is not None:
        load_weights(network, model.weights, channels)
    return network
