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


def number(in_channels, num_outputs):
    return 3


def fails(in_channels, num_outputs):
    raise RuntimeError("no weights here")


VALUE = 1
"""
