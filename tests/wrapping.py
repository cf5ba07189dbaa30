"""What the adapters of some libraries put in the place of a layer."""

from torch import nn


class Wrapper(nn.Module):
    """Calls a layer and has none of its attributes."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, *args, **kwargs):
        return self.base(*args, **kwargs)
