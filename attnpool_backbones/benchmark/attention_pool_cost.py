"""What attention pooling costs beside average pooling; `python -m` this module measures it.

The pools alone on maps as they meet them (forward and backward pass), and a training step of whole
models that have them by config.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from attnpool_backbones.benchmark.training_cost import compared, seconds_in_turns, training_step
from attnpool_backbones.config_files import config_root
from attnpool_backbones.layers.attention_pool import AttentionPool2d
from attnpool_backbones.layers.attention_units import POOLING_UNITS

__all__ = ['MODELS', 'POOLS', 'pool_step']

HEADS = 4
POOLS = ((8, 256, 64, 1), (8, 2048, 16, 1), (8, 512, 16, 2), (8, 512, 16, 6))
"""Images, channels, side of the map and bins a side: gates, classifiers and pyramid pooling."""
_UPERNET = 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py'
_RESNET = 'attn_resnet/mask-rcnn_sge-resnet-nano_slim-fpn_digit-scenes.py'
MODELS = (
    ('UperNet', _UPERNET, {}, {
        'decode_head.type': 'attnpool_backbones.WithAttentionPools',
        'decode_head.base': 'UPerHead', 'decode_head.pool_heads': HEADS,
    }),
    *(
        (f'Mask R-CNN, {unit.upper()}', _RESNET, {'backbone.arch': f'{unit}_resnet_nano'},
         {'backbone.arch': f'{unit}_resnet_nano_attnpool'})
        for unit in POOLING_UNITS
    ),
)  # fmt: skip
"""Name, config, and what of its model makes it average and attend (GC: as published)."""
SIZE, BATCH = (192, 192), 8


def pool_step(pool: nn.Module, x: torch.Tensor) -> Callable[[], float]:
    """Returns a forward and backward pass of a pool that tells its seconds."""

    def step() -> float:
        x.grad = None
        begun = time.perf_counter()
        pool(x).sum().backward()
        return time.perf_counter() - begun

    return step


def form_of(config: str, change: dict[str, Any]) -> Config:
    """Returns a config with some settings of its model changed."""
    cfg = Config.fromfile(config_root() / config)
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    return cfg


def main() -> None:
    """Prints a line for each pool and each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=15, help='default: %(default)s')
    rounds = parser.parse_args().rounds
    for batch, channels, side, bins in POOLS:
        x = torch.randn(batch, channels, side, side, requires_grad=True)
        pools = (nn.AdaptiveAvgPool2d(bins), AttentionPool2d(channels, bins, HEADS))
        seconds = seconds_in_turns([pool_step(pool, x) for pool in pools], 10 * rounds)
        name = f'{batch}x{channels}x{side}x{side} to {bins}x{bins}'
        print(compared(name, *seconds, f'{HEADS} heads'))
    for name, config, *changes in MODELS:
        forms = [form_of(config, change) for change in changes]
        init_default_scope(forms[0].default_scope)
        seconds = seconds_in_turns([training_step(cfg, SIZE, BATCH) for cfg in forms], rounds)
        print(compared(name, *seconds, f'{HEADS} heads'))


if __name__ == '__main__':
    main()
