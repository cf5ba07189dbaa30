"""What an image-level head adds to a training step; `python -m` this module measures it.

Both forms of a model take the same batch in turns, so that a slower moment of the machine meets
both; the figure is the ratio of the medians.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from attnpool_backbones.benchmark.random_batches import random_batch
from attnpool_backbones.config_files import config_root
from attnpool_backbones.zoo.config_models import build_config_model

CONFIGS = (
    'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py',
    'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py',
)
SIZE = (192, 192)


def training_step(cfg: Config, batch: int) -> Callable[[], None]:
    """Returns a step that computes all losses of a batch and their gradients."""
    model: nn.Module = build_config_model(cfg).train()
    data = random_batch(cfg, SIZE, batch)

    def step() -> None:
        prepared = model.data_preprocessor(copy.deepcopy(data), True)
        torch.manual_seed(0)  # the same samples of RoIs for both forms
        begun = time.perf_counter()
        loss, _ = model.parse_losses(model(**prepared, mode='loss'))
        loss.backward()
        step.seconds = time.perf_counter() - begun
        model.zero_grad()

    return step


def measure(config: str, rounds: int, batch: int = 8) -> tuple[float, float]:
    """Returns the medians of the seconds of a step, without and with the head.

    Args:
        config: Below ``configs``.
        rounds: Steps of each form, after one that does not count.
        batch: Images in a step.
    """
    plain = Config.fromfile(config_root() / config)
    init_default_scope(plain.default_scope)
    tagged = copy.deepcopy(plain)
    tagged.model.update(
        type='attnpool_backbones.WithImageHead', base=plain.model.type, image_head={}
    )
    steps = [training_step(cfg, batch) for cfg in (plain, tagged)]
    times: list[list[float]] = [[], []]
    for i in range(rounds + 1):
        for k in (0, 1) if i % 2 else (1, 0):
            steps[k]()
            if i:
                times[k].append(steps[k].seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=25, help='default: %(default)s')
    rounds = parser.parse_args().rounds
    for config in CONFIGS:
        without, with_head = measure(config, rounds)
        print(
            f'{config}: {1000 * without:.1f} ms without, {1000 * with_head:.1f} ms with the head, '
            f'{100 * (with_head / without - 1):+.1f} %'
        )


if __name__ == '__main__':
    main()
