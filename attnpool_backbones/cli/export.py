"""Writes a trained model as one file that predicts without mmdet, mmseg or a config.

    attnpool export work_dirs/photos_mask-rcnn_caformer-s18
    attnpool export RUN --out model.onnx --images photos/val
    attnpool export RUN --int8 --images photos/train
    attnpool export CONFIG --checkpoint epoch_12.pth --size 640 640
    attnpool predict model.onnx photos/new

The file holds all from pixels to predictions (normalisation, suppression of double boxes, masks,
the label of each pixel), and says how images are prepared, which classes there are and which
thresholds. It is compared with the model before it is written; one that differs is not written.
"""

import argparse

from attnpool_backbones.command_line import given_name, whole_number

__all__ = ['add_arguments', 'run']

MAX_SIDE, MAX_BATCH = 2**16, 1024
"""As the metadata of a file may tell."""
FORMATS = {'onnx': '.onnx', 'torch-export': '.pt2', 'openvino': '.xml'}
"""What can be written -> ending of the file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool export``."""
    from attnpool_backbones.launching.options import CfgOptions

    add = parser.add_argument
    add('model', type=given_name, metavar='MODEL', help='folder of a run, or a config')
    add(
        '--checkpoint',
        type=given_name,
        help='of the config (default: the best of the run, else the last)',
    )
    add('--to', choices=FORMATS, default='onnx', help='kind of file (default: %(default)s)')
    add(
        '--out',
        type=given_name,
        metavar='FILE',
        help='default: the name of the run or config, here',
    )
    add(
        '--size',
        nargs=2,
        type=whole_number(1, MAX_SIDE),
        metavar=('HEIGHT', 'WIDTH'),
        help='of all images, in pixels after resizing (default: any size, where the model allows)',
    )
    add(
        '--batch',
        type=whole_number(1, MAX_BATCH),
        default=1,
        metavar='N',
        help='images at once where the size is fixed (default: %(default)s)',
    )
    add(
        '--images',
        type=given_name,
        metavar='SOURCE',
        help='images on which file and model are compared, the first 4 of them: a folder, a '
        'pattern in quotes, a file (default: noise, which shows less of a detector)',
    )
    add(
        '--int8',
        action='store_true',
        help='convolutions and linear layers with 8 bits, calibrated on --images (onnx only)',
    )
    add(
        '--calibration',
        type=whole_number(1),
        default=64,
        metavar='N',
        help='images of --images that --int8 looks at (default: %(default)s)',
    )
    add('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='override settings of the config')  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Carries out ``attnpool export``."""
    from pathlib import Path

    from attnpool_backbones.command_line import UserError
    from attnpool_backbones.export.exporting import Request, export
    from attnpool_backbones.inference.sources import open_source
    from attnpool_backbones.launching.targets import require_target_file

    ending = FORMATS[args.to]
    path = Path(args.model)
    target = Path(args.out or (path.resolve().name if path.is_dir() else path.stem) + ending)
    if target.suffix != ending:
        raise UserError(f'--out {target}: a file of --to {args.to} ends with {ending}')
    # a path has no two slashes
    require_target_file('--out', args.out or str(target))
    # export refuses standard input, which a look would use up
    if args.images not in (None, '-'):
        # told before the work, if it is not there
        for folder in open_source(args.images).closed:
            print(f'--images: left out: {folder}')
    done = export(
        Request(
            args.model,
            str(target),
            checkpoint=args.checkpoint,
            size=args.size and tuple(args.size),
            batch=args.batch,
            to=args.to,
            images=args.images,
            int8=args.int8,
            calibration=args.calibration,
            cfg_options=args.cfg_options,
        )
    )
    print(f'written: {done.path} ({done.path.stat().st_size / 2**20:.1f} MiB)')
