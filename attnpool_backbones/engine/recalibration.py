"""Gives the BatchNorms over attention maps the statistics of the size at hand."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from attnpool_backbones.layers.re_attention import HeadMixing


@torch.no_grad()
def recalibrate_statistics(backbone: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces the map norms' running statistics by their averages over some batches.

    Running statistics of maps with 197 tokens do not fit maps with 4200 (``stats_tokens='fixed'``),
    nor do those of other data. Each norm uses a batch's own statistics meanwhile, so deep blocks
    see what calibrated blocks before them give. Weights and all other norms stay as they are.

    Args:
        backbone: A :class:`attnpool_backbones.backbones.DeepViT`, or a module that takes such
            batches and contains :class:`HeadMixing` layers.
        batches: Preprocessed images B, 3, H, W, of the size and kind to be used later.

    Returns:
        The number of norms that have new statistics; 0 if the backbone has none over maps.

    Raises:
        ValueError: No batches.
    """
    mixings = (m for m in backbone.modules() if isinstance(m, HeadMixing))
    norms = [m.norm for m in mixings if isinstance(m.norm, nn.BatchNorm2d)]
    if not norms:
        return 0
    modes = {module: module.training for module in backbone.modules()}
    momenta = [norm.momentum for norm in norms]
    saved = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
    backbone.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    count = 0
    try:
        for batch in batches:
            backbone(batch)
            count += 1
        if not count:
            raise ValueError('recalibrate_statistics needs at least one batch')
    except BaseException:
        for norm, buffers in zip(norms, saved, strict=True):
            norm.load_state_dict(buffers, strict=False)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return len(norms)
