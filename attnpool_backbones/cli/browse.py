"""Draws samples with their labels, before and after augmentation.

    attnpool browse work_dirs/photos_mask-rcnn_caformer-s18.py
    attnpool browse photos --count 24
    attnpool browse photos --backbone caformer_s18 --head mask-rcnn --size 512

The folder gets contact_sheet.png with all samples, and index.html with them in their own size.
"""

import argparse
import tempfile
from pathlib import Path

from attnpool_backbones.cli.own_data_arguments import (
    add_own_data_arguments,
    add_plan_arguments,
    choose_any_model,
    prepare_with_progress,
    request_of,
    require_no_folder_flags,
)
from attnpool_backbones.command_line import MAX_SEED, given_name, is_config, whole_number

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool browse``."""
    from attnpool_backbones.launching.options import CfgOptions

    add = parser.add_argument
    add('source', type=given_name, metavar='CONFIG|FOLDER', help='a config file, or own data')
    add('--split', choices=['train', 'val', 'test'], default='train', help='default: %(default)s')
    add('--count', type=whole_number(1), default=12, metavar='N', help='default: %(default)s')
    add('--out', type=given_name, default='browse', metavar='FOLDER', help='default: %(default)s')
    add('--seed', type=whole_number(0, MAX_SEED), default=0,
        help='of choice and augmentation (default: %(default)s)')  # fmt: skip
    add('--columns', type=whole_number(1), default=2, help='of the contact sheet (default: 2)')
    add('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='override settings of the config')  # fmt: skip
    add_own_data_arguments(parser)
    add_plan_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Carries out ``attnpool browse``."""
    from attnpool_backbones.datasets.config_paths import require_data
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.launching.targets import require_target_folder
    from attnpool_backbones.own_data.browsing import contact_sheet, draw_samples, write_page
    from attnpool_backbones.pictures import write_picture

    with tempfile.TemporaryDirectory() as folder:
        if is_config(args.source):
            require_no_folder_flags(args)
            cfg = load_config(args.source, args.cfg_options)
        else:
            opened = choose_any_model(args)
            request = request_of(args, work_dir=f'{folder}/run', weights='none')
            cfg = prepare_with_progress(request, opened=opened).cfg
        require_data(cfg, (args.split,))
        samples = draw_samples(cfg, args.split, args.count, args.seed)
    require_target_folder('--out', args.out)
    out = Path(args.out)
    sheet = out / 'contact_sheet.png'
    write_picture(sheet, contact_sheet(samples, args.columns))
    page = write_page(samples, out, f'{args.source}, {args.split}')
    print(f'{len(samples)} samples: {sheet}, {page}')
