"""What is done to networks of other packages."""

import pytest
import torch
from torch import nn

from deploy.errors import UserError
from teacher.external.origin import adapt_first_convolution


class Standardized(nn.Conv2d):
    """As of BiT."""

    def forward(self, input):
        return self._conv_forward(
            input, self.weight / self.weight.std((1, 2, 3), keepdim=True, correction=0), self.bias
        )


def test_a_first_convolution_keeps_its_type_and_its_settings():
    network = nn.Sequential(Standardized(3, 4, 3, padding="same", dilation=2, padding_mode="reflect"))
    network.eval()
    x = torch.randn(1, 3, 16, 16)
    before = network(x)
    adapt_first_convolution(network, 6)
    torch.testing.assert_close(network(torch.cat([x, x], 1)), 2 * before - network[0].bias[:, None, None])


def test_a_first_convolution_of_single_channels_is_refused():
    with pytest.raises(UserError, match=r"takes each channel alone.*choose another network"):
        adapt_first_convolution(nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), 2)
