"""Activations as modules."""

from torch import Tensor, nn

from attnpool_backbones.ops.activations import gelu, relu, silu
from attnpool_backbones.ops.fusing import plain


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
