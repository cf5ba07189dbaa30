"""The model of a config, without weights and on any device."""

from contextlib import nullcontext
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from attnpool_backbones.config_types import type_name
from attnpool_backbones.launching.devices import make_norms_plain


def build_config_model(cfg: Config, device: str = 'cpu') -> nn.Module:
    """Builds ``cfg.model`` as a Runner does, with random weights and plain batch norms.

    Args:
        cfg: Config of mmdet or mmseg; its model is left as it is.
        device: Where the parameters are made; ``'meta'``: shapes without values.

    Returns:
        The model, with its config as ``cfg``, as mmdet's and mmseg's tools leave it.
    """
    torch.default_generator.manual_seed(0)
    # The constructor of mmdet's SwinTransformer reads values, which tensors on meta do not have.
    on_cpu = type_name(cfg.model.get('backbone')) == 'SwinTransformer'
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        nullcontext() if on_cpu else torch.device(device),
    ):
        config = _without_weights(cfg.model)
        make_norms_plain(config)
        model = MODELS.build(config)
    model.cfg = cfg
    return model.to(device)


def _without_weights(config: Any) -> Any:
    """Copies a part of a config without what names files of weights."""
    if isinstance(config, dict):
        kept = {k: v for k, v in config.items() if k not in ('init_cfg', 'pretrained')}
        return type(config)({key: _without_weights(value) for key, value in kept.items()})
    if isinstance(config, (list, tuple)):
        return type(config)(_without_weights(value) for value in config)
    return config
