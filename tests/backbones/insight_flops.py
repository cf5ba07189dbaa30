"""The counting rule behind the GFLOPs that PytorchInsight publishes for SGE and its rivals.

One operation for each multiply-accumulate of a convolution or a linear layer and for each bias
added, two for each element that a BatchNorm normalises, one for each element that goes into a ReLU
or a pooling layer; nothing else counts (arXiv 1905.09646; README of implus/PytorchInsight).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.layers.cbam import ChannelGate
from attnpool_backbones.layers.selective_kernel import SelectiveKernel
from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.layers.squeeze_excite import SqueezeExcite


def _of_weights(module: nn.Conv2d | nn.Linear, inputs: Sequence[Tensor], y: Tensor) -> int:
    return y.numel() * (module.weight[0].numel() + (module.bias is not None))


# What a module itself does; what its children do is counted with them. The units are ours: they
# pool and rectify by functions, where the official code has modules.
_RULES: Mapping[type[nn.Module], Callable[[nn.Module, Sequence[Tensor], Tensor], int]] = {
    nn.Conv2d: _of_weights,
    nn.Linear: _of_weights,
    _BatchNorm: lambda module, inputs, y: 2 * y.numel(),
    nn.ReLU: lambda module, inputs, y: y.numel(),
    nn.MaxPool2d: lambda module, inputs, y: inputs[0].numel(),
    SGE: lambda module, inputs, y: y.numel() * len(inputs),  # pooling; ReLU of the residual sum
    SqueezeExcite: lambda module, inputs, y: y.numel(),  # pooling
    ChannelGate: lambda module, inputs, y: 2 * y.numel(),  # two poolings
    SelectiveKernel: lambda module, inputs, y: 4 * y.numel(),  # two ReLUs, two poolings
}


def count_insight_flops(
    model: DenseBackbone, input_size: tuple[int, int], average_pooling: bool = True
) -> int:
    """Returns what PytorchInsight's counter gives for one image.

    The model is run once, so build it on the meta device, where nothing is computed.

    Args:
        model: An ``AttnResNet``.
        input_size: Height and width of the image, in pixels.
        average_pooling: Whether to count the classifier's average pooling of the last map, as the
            published numbers do, even those called backbone (there only the linear layer is left
            out); those of GC do not.
    """
    counts: list[int] = []

    def count(module: nn.Module, inputs: Sequence[Tensor], y: Tensor) -> None:
        counts.extend(rule(module, inputs, y) for kind, rule in _RULES.items()
                      if isinstance(module, kind))  # fmt: skip

    handles = [m.register_forward_hook(count) for m in model.modules()]
    try:
        with torch.no_grad():
            outputs = model(torch.zeros(1, 3, *input_size, device=model.conv1.weight.device))
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts) + average_pooling * outputs[-1].numel()
