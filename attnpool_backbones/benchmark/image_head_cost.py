"""What an image-level head adds to a training step; `python -m` this module measures it.

One model takes both steps, with its head and with ``loss_weight=0``, which runs the model's own
losses alone: two models of one kind differ by some percent, because they lie elsewhere in memory.
"""

import argparse
from collections.abc import Callable

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from attnpool_backbones.benchmark.training_cost import compared, training_step
from attnpool_backbones.command_line import whole_number
from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.process_memory import keep_free_memory
from attnpool_backbones.stopwatch import seconds_in_turns

CONFIGS = {
    'mask-rcnn': 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py',
    'upernet': 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py',
}


def measure(config: str, rounds: int) -> list[list[float]]:
    """Returns the seconds of steps without and with the head.

    Args:
        config: Below ``configs``.
        rounds: Steps of each form, after one that does not count.
    """
    cfg = Config.fromfile(config_root() / config)
    init_default_scope(cfg.default_scope)
    cfg.model.update(type='attnpool_backbones.WithImageHead', base=cfg.model.type, image_head={})
    model = build_config_model(cfg).train()
    step = training_step(model)
    return seconds_in_turns([weighted(step, model, weight) for weight in (0.0, 1.0)], rounds)


def weighted(step: Callable[[], float], model: nn.Module, weight: float) -> Callable[[], float]:
    """Returns a step of a model whose image-level head has a weight."""

    def with_weight() -> float:
        model.image_head.loss_weight = weight
        return step()

    return with_weight


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'models', nargs='*', default=list(CONFIGS), metavar='MODEL',
        help=f'of {", ".join(CONFIGS)} (default: all)',
    )  # fmt: skip
    parser.add_argument('--rounds', type=whole_number(2), default=100, help='default: %(default)s')
    parser.add_argument(
        '--keep-memory', action='store_true',
        help='keep memory that is freed: page faults, of which steps have some thousands, vary '
        'more than the head costs',
    )  # fmt: skip
    args = parser.parse_args()
    if args.keep_memory:
        keep_free_memory()
    for name in args.models:
        if name not in CONFIGS:
            parser.error(f'MODEL {name} is none of {", ".join(CONFIGS)}')
        print(compared(name, *measure(CONFIGS[name], args.rounds), 'the head'), flush=True)


if __name__ == '__main__':
    main()
