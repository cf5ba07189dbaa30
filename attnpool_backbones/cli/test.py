"""Evaluates a trained model, or an exported file, on the data that a config tests on.

attnpool test work_dirs/photos_mask-rcnn_caformer-s18
attnpool test CONFIG CHECKPOINT --tta
attnpool test model.onnx work_dirs/photos_mask-rcnn_caformer-s18
"""

import argparse
from collections.abc import Mapping

from attnpool_backbones.command_line import given_name

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool test``."""
    from attnpool_backbones.launching.options import add_common_arguments, add_test_arguments

    parser.add_argument(
        'model',
        type=given_name,
        metavar='MODEL',
        help='folder of a run, a config, or a file of attnpool export',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        type=given_name,
        metavar='CHECKPOINT|CONFIG',
        help='checkpoint of a config (default: the best of the run, else the last); for an '
        'exported file the config, or the folder of the run, that says what it is tested on',
    )
    add_common_arguments(parser)
    add_test_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Carries out ``attnpool test``."""
    from attnpool_backbones.inference.loading import find_model_files, is_exported
    from attnpool_backbones.launching.launch import test

    if is_exported(args.model):
        return _tell(args, _test_exported(args))
    config, checkpoint = find_model_files(args.model, args.checkpoint)
    args.config, args.checkpoint = str(config), str(checkpoint)
    print(f'checkpoint: {checkpoint}', flush=True)
    _tell(args, test(args))


def _tell(args: argparse.Namespace, metrics: Mapping[str, float]) -> None:
    """Prints the metrics, which a config may keep out of the log (``log_level='WARNING'``)."""
    if args.local_rank == 0 and metrics:
        values = (f'{v:.4f}' if isinstance(v, float) else f'{v}' for v in metrics.values())
        print('  '.join(map(': '.join, zip(metrics, values, strict=True))), flush=True)


def _test_exported(args: argparse.Namespace) -> dict[str, float]:
    from pathlib import Path

    from attnpool_backbones.command_line import UserError
    from attnpool_backbones.inference.exported_files import read_exported
    from attnpool_backbones.inference.exported_testing import evaluate_exported
    from attnpool_backbones.inference.loading import config_of_run

    args.exported = args.model
    if args.checkpoint is None:
        made = read_exported(args.exported)[1].made.get('model', 'its model')[:80]
        raise UserError(
            f'{args.exported}: say what it is tested on: the config, or the folder of the run, '
            f'that it was exported from ({made}); a file does not say which program to run'
        )
    source = Path(args.checkpoint)
    args.config = str(config_of_run(source) if source.is_dir() else source)
    return evaluate_exported(args)
