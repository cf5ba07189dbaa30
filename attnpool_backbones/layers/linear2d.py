"""A linear layer over the channels of a map."""

from torch import Tensor, nn
from torch.nn import functional as F


class Linear2d(nn.Linear):
    """The same linear layer at every position of a map, i.e. a 1x1 convolution.

    A ``channels_last`` map is a matrix of positions x channels as it lies, so this is one matrix
    product without copies, faster than the convolution where there are few channels. The result is
    ``channels_last``.
    """

    def forward(
        self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Computes the layer.

        Args:
            x: Map B, C, H, W.
            weight: Used in place of the layer's own weight, together with ``bias``; for scales
                that are cheaper on the weight than on the map.
            bias: See ``weight``.

        Returns:
            Map B, ``out_features``, H, W.
        """
        if weight is None:
            weight, bias = self.weight, self.bias
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
