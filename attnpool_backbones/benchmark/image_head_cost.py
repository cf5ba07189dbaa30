"""What an image-level head adds to a training step; `python -m` this module measures it."""

import argparse
import copy

from mmengine.config import Config
from mmengine.registry import init_default_scope

from attnpool_backbones.benchmark.training_cost import compared, median_seconds, training_step
from attnpool_backbones.config_files import config_root

CONFIGS = (
    'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py',
    'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py',
)
SIZE, BATCH = (192, 192), 8


def measure(config: str, rounds: int) -> list[float]:
    """Returns the medians of the seconds of a step, without and with the head.

    Args:
        config: Below ``configs``.
        rounds: Steps of each form, after one that does not count.
    """
    plain = Config.fromfile(config_root() / config)
    init_default_scope(plain.default_scope)
    tagged = copy.deepcopy(plain)
    tagged.model.update(
        type='attnpool_backbones.WithImageHead', base=plain.model.type, image_head={}
    )
    return median_seconds([training_step(cfg, SIZE, BATCH) for cfg in (plain, tagged)], rounds)


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=25, help='default: %(default)s')
    rounds = parser.parse_args().rounds
    for config in CONFIGS:
        print(compared(config, *measure(config, rounds), 'the head'))


if __name__ == '__main__':
    main()
