"""A user's module with networks that do, and networks that do not."""

MODULE = """
from torch import nn
from teacher.pspnet import Output


class Net(nn.Module):
    def __init__(self, in_channels, num_outputs):
        super().__init__()
        self.body = nn.Conv2d(in_channels, 8, 3, 4, 1)
        self.last = nn.Conv2d(8, num_outputs, 1)

    def forward(self, x):
        return self.last(self.body(x))


class Mapping(Net):
    def forward(self, x):
        body = self.body(x)
        return {"out": self.last(body), "aux": self.last(body), "features": {"body": body}}


class Ours(Net):
    def forward(self, x):
        body = self.body(x)
        return Output(self.last(body), None, {"layer4": body})


class Flat(Net):
    def forward(self, x):
        return super().forward(x).flatten(2)


class Labels(Net):
    def forward(self, x):
        return super().forward(x).argmax(1, keepdim=True)


class Twice(Net):
    def __init__(self, in_channels, num_outputs):
        super().__init__(in_channels, 2 * num_outputs)


class Named(Net):
    def forward(self, x):
        return {"masks": super().forward(x)}


class Nothing(Net):
    def forward(self, x):
        return None


class Broken(Net):
    def forward(self, x):
        return self.lost(x)


class TupleInTraining(Net):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class OneAux(Mapping):
    def forward(self, x):
        return super().forward(x) | {"aux": super().forward(x)["aux"][:, :1]}


class FlatFeatures(Mapping):
    def forward(self, x):
        return super().forward(x) | {"features": {"body": x.flatten(1)}}


class ListOfFeatures(Mapping):
    def forward(self, x):
        return super().forward(x) | {"features": [x]}


class Probabilities(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Halves(Net):  # takes sides that are multiples of 32 alone, as a U-Net does
    def forward(self, x):
        return super().forward(x.unflatten(3, (-1, 32)).flatten(3))


class OnlySmall(Net):  # takes images of 40×40 alone, as a network with learned positions does
    def forward(self, x):
        return super().forward(x) + x.new_ones(10, 10)


def number(in_channels, num_outputs):
    return 3


def fails(in_channels, num_outputs):
    raise RuntimeError("no weights here")


VALUE = 1
"""
