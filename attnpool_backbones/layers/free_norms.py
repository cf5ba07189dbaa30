"""Norms that mmcv's ``fuse_conv_bn`` must not take for those of convolutions."""

from collections.abc import Iterator

from torch import nn


class FreeNorms(nn.Module):
    """A module with norms that do not follow a convolution.

    mmcv's ``fuse_conv_bn`` folds a BatchNorm among a module's children into the last convolution
    listed before it. Norms that compute elsewhere are listed first, where none is. The order of the
    parameters stays as it is: optimizers keep their state by it.
    """

    def free_norms(self) -> tuple[str, ...]:
        """Returns the names of the children that are such norms."""
        raise NotImplementedError

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields names and children, free norms first."""
        names = self.free_norms()
        yield from sorted(super().named_children(), key=lambda child: child[0] not in names)
