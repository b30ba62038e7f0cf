"""Networks of known output."""

from torch import nn


class Output(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, t, condition):
        self.t = t
        return self.output
