"""A stage of the training loop that takes a tiny network one second."""

from dataclasses import replace

import torch

from distill.config import TrainConfig
from distill.training.loop import train
from tests.distill.tiny import distillation, tiny_net

SGD = TrainConfig(
    steps=8, batch_size=4, optimizer="sgd", schedule="poly", lr=0.05, checkpoint_every=3, log_every=2
)
RMSPROP = replace(SGD, optimizer="rmsprop", lr=0.001)
ADAMW = replace(SGD, optimizer="adamw", schedule="cosine", lr=0.01)


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def trained(stage, config, accelerator, teacher=None, loss="kl(t=2)", distill=None, **options):
    network = tiny_net()
    if teacher is not None:
        options["distillation"] = distillation(teacher, network, accelerator, loss, **(distill or {}))
    train(network, stage, config, accelerator, **options)
    return weights(network)
