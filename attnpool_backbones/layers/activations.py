"""Activations as modules."""

from torch import Tensor, nn

from attnpool_backbones.ops.activations import gelu, relu, silu
from attnpool_backbones.ops.fusing import own, plain


@plain
class GELU(nn.GELU):
    """x Phi(x) (arXiv 1606.08415); may overwrite its input, see :func:`gelu`."""

    def __init__(self):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


@plain
class ReLU(nn.ReLU):
    """max(x, 0); may overwrite its input."""

    def __init__(self):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)


@plain
class SiLU(nn.SiLU):
    """x sigmoid(x) (arXiv 1702.03118); may overwrite its input."""

    def __init__(self):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return silu(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {'gelu': GELU, 'relu': ReLU, 'silu': SiLU}
"""Activations by name."""


class Activated(nn.Sequential):
    """Layers in turn; activations among them overwrite only what nobody else can have kept."""

    def forward(self, x: Tensor) -> Tensor:
        before = None
        for layer in self:
            if before is not None and isinstance(layer, tuple(ACTIVATIONS.values())):
                x = own(x, before)
            x, before = layer(x), layer
        return x
