"""What attention pooling costs beside average pooling; `python -m` this module measures it.

The pools alone on maps as they meet them (forward and backward pass), and a training step of whole
models that have them by config: one model whose pools are exchanged in turns, because two models of
one kind differ by some percent.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from attnpool_backbones.benchmark.training_cost import compared, training_step
from attnpool_backbones.command_line import whole_number
from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.layers.attention_pool import AttentionPool2d
from attnpool_backbones.layers.attention_units import BLOCK_UNITS, POOLING_UNITS
from attnpool_backbones.process_memory import keep_free_memory
from attnpool_backbones.stopwatch import seconds_in_turns

__all__ = ['MODELS', 'POOLS', 'exchanged', 'model_seconds', 'pool_step']

HEADS = 4
POOLS = ((8, 256, 64, 1), (8, 2048, 16, 1), (8, 512, 16, 2), (8, 512, 16, 6))
"""Images, channels, side of the map and bins a side: gates, classifiers and pyramid pooling."""
_UPERNET = 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py'
_RESNET = 'attn_resnet/mask-rcnn_sge-resnet-nano_slim-fpn_digit-scenes.py'
_RESNET50 = 'attn_resnet/retinanet_se-resnet50_fpn_2x_coco.py'
MODELS = {
    'upernet': (_UPERNET, {}, {
        'decode_head.type': 'attnpool_backbones.WithAttentionPools',
        'decode_head.base': 'UPerHead', 'decode_head.pool_heads': HEADS,
    }),
    **{
        f'mask-rcnn-{unit}': (_RESNET, {'backbone.arch': f'{unit}_resnet_nano'},
                              {'backbone.arch': f'{unit}_resnet_nano_attnpool'})
        for unit in POOLING_UNITS
    },
    'retinanet-se-resnet50': (_RESNET50, {}, {'backbone.arch': 'se_resnet50_attnpool'}),
}  # fmt: skip
"""Name -> config, and what of its model makes it average and attend (GC: as published)."""
_PARTS = (nn.AdaptiveAvgPool2d, AttentionPool2d, *map(BLOCK_UNITS.get, POOLING_UNITS))


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


def exchanged(model: nn.Module, other: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Returns the pools, or units with one, of two forms of a model by the names they share."""
    own, others = (
        {name: part for name, part in form.named_modules() if isinstance(part, _PARTS)}
        for form in (model, other)
    )
    return {name: (own[name], others[name]) for name in own if name in others}


def model_seconds(name: str, rounds: int) -> list[list[float]]:
    """Returns the seconds of steps of a model with average and with attention pools.

    Args:
        name: Of :data:`MODELS`.
        rounds: Pairs of steps of each form. The first step after an exchange can be a sixth slower,
            so each form is once the first of its round and once the second.

    Returns:
        The mean seconds of each pair, a list for each form.
    """
    config, *changes = MODELS[name]
    forms = [form_of(config, change) for change in changes]
    init_default_scope(forms[0].default_scope)
    model, other = (build_config_model(cfg).train() for cfg in forms)
    parts = exchanged(model, other)
    step = training_step(model)

    def with_parts(form: int) -> float:
        for part, both in parts.items():
            model.set_submodule(part, both[form])
        return step()

    times = seconds_in_turns([partial(with_parts, form) for form in (0, 1)], 2 * rounds)
    return [[(a + b) / 2 for a, b in zip(own[::2], own[1::2], strict=True)] for own in times]


def main() -> None:
    """Prints a line for each pool and each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ('pools', *MODELS)
    parser.add_argument(
        'what',
        nargs='*',
        default=known,
        metavar='WHAT',
        help=f'of {", ".join(known)} (default: all)',
    )
    parser.add_argument(
        '--rounds',
        type=whole_number(2),
        default=15,
        help='pairs of steps of a model (default: %(default)s)',
    )
    parser.add_argument(
        '--keep-memory', action='store_true',
        help='keep memory that is freed: page faults vary more than pools cost',
    )  # fmt: skip
    args = parser.parse_args()
    for name in args.what:
        if name not in known:
            parser.error(f'WHAT {name} is none of {", ".join(known)}')
    if args.keep_memory:
        keep_free_memory()
    for batch, channels, side, bins in POOLS if 'pools' in args.what else ():
        x = torch.randn(batch, channels, side, side, requires_grad=True)
        pools = (nn.AdaptiveAvgPool2d(bins), AttentionPool2d(channels, bins, HEADS))
        seconds = seconds_in_turns([pool_step(pool, x) for pool in pools], 10 * args.rounds)
        name = f'{batch}x{channels}x{side}x{side} to {bins}x{bins}'
        print(compared(name, *seconds, f'{HEADS} heads'), flush=True)
    for name in MODELS:
        if name in args.what:
            print(compared(name, *model_seconds(name, args.rounds), f'{HEADS} heads'), flush=True)


if __name__ == '__main__':
    main()
