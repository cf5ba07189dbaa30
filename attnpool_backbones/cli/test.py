"""Evaluates a trained model on the data that its config tests on.

attnpool test work_dirs/photos_mask-rcnn_caformer-s18
attnpool test CONFIG CHECKPOINT --tta
"""

import argparse

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool test``."""
    from attnpool_backbones.launching.options import add_common_arguments, add_test_arguments

    parser.add_argument('model', metavar='MODEL', help='folder of a run, or a config')
    parser.add_argument(
        'checkpoint', nargs='?', help='of the config (default: the best of the run, else the last)'
    )
    add_common_arguments(parser)
    add_test_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Carries out ``attnpool test``."""
    from attnpool_backbones.inference.loading import find_model_files
    from attnpool_backbones.launching.launch import test

    config, checkpoint = find_model_files(args.model, args.checkpoint)
    args.config, args.checkpoint = str(config), str(checkpoint)
    print(f'checkpoint: {checkpoint}', flush=True)
    test(args)
