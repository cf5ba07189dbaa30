"""Untrained models whose scores can be ranked."""

from functools import partial

import torch
from mmengine.config import Config
from torch import nn

from attnpool_backbones.export.graph import build_graph, example
from attnpool_backbones.launching.config_models import build_config_model

SPREADS = {
    'rpn_cls': (1.5, 0), 'fc_cls': (1.5, 0), 'retina_cls': (0.3, -2), 'rpn_reg': (None, 0),
    'fc_reg': (None, 0), 'retina_reg': (None, 0),
}  # fmt: skip
"""Layers that score or move boxes -> spread of what they say of inputs of spread 1, and bias.

Scores of many classes at once end close to 1 otherwise, where equal ones have no order; boxes move
by a fixed spread of the weights."""


def untrained(cfg: Config) -> nn.Module:
    """Builds a model whose scores are far enough apart to be ranked."""
    model = build_config_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    layers = {name: module for name, module in model.named_modules() if _last(name) in SPREADS}
    if layers:
        hooks = [
            layer.register_forward_pre_hook(partial(_spread, *SPREADS[_last(name)]))
            for name, layer in layers.items()
        ]
        with torch.no_grad():
            build_graph(model, cfg)(example(1, 128, 160))
        for hook in hooks:
            hook.remove()
    return model


def _last(name: str) -> str:
    return name.rpartition('.')[2]


def _spread(spread: float | None, bias: float, layer: nn.Module, inputs: tuple) -> None:
    """Draws the weights of a layer for the size of its inputs.

    Maps of an untrained SGE-ResNet-50 have a spread of 30: with weights for 1, the scores of two
    of five proposals were exactly 1 in float32, and torch and onnxruntime ranked them each in its
    own way.
    """
    std = 0.02 if spread is None else spread / layer.weight[0].numel() ** 0.5
    nn.init.normal_(layer.weight, std=std / max(1, float(inputs[0].std())))
    nn.init.constant_(layer.bias, bias)


def classes_of(model: nn.Module) -> tuple[str, ...]:
    """Returns names for the classes of a model."""
    head = getattr(model, 'decode_head', None) or getattr(model, 'bbox_head', None)
    if head is None:
        head = model.roi_head.bbox_head
        head = head[0] if isinstance(head, nn.ModuleList) else head
    return tuple(f'class {label}' for label in range(head.num_classes))
