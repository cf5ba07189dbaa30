"""The flags of subcommands that read a folder of one's own."""

import argparse
from typing import TYPE_CHECKING, Any

from attnpool_backbones.command_line import UserError, given_name, shortened, whole_number

if TYPE_CHECKING:
    from attnpool_backbones.own_data.folder import Folder
    from attnpool_backbones.own_data.preparing import Prepared
    from attnpool_backbones.own_data.request import Request

__all__ = [
    'add_own_data_arguments',
    'add_plan_arguments',
    'choose_any_model',
    'choose_model',
    'prepare_with_progress',
    'request_of',
    'require_no_folder_flags',
    'share',
]

FORMATS = ('coco', 'yolo', 'voc', 'labelme', 'via', 'cvat', 'masks')
DEFAULT_BACKBONE = 'caformer_s18'
FOLDER_ONLY = dict(
    backbone=None, head=None, format=None, classes=None, ignore_label=[], val_share=0.2,
    group=None, split_seed=0, size=None, weights=None, masks=False,
)  # fmt: skip
"""Flags that a config leaves nothing to say for, and their defaults."""


def add_own_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say what is in a folder.

    Args:
        parser: Extended in-place.
    """
    group = parser.add_argument_group('own data')
    add = group.add_argument
    add(
        '--backbone',
        type=given_name,
        help=f'such as patchconvnet-nano; attnpool models lists all (default: {DEFAULT_BACKBONE})',
    )
    add(
        '--head',
        type=given_name,
        help='such as retinanet; attnpool models lists all (default: upernet for masks of images, '
        'mask-rcnn for objects with masks, faster-rcnn for boxes)',
    )
    add('--format', choices=FORMATS, help='of the labels, where a folder has several')
    add(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='names of the classes in this order, or a file with them; others are left out',
    )
    add(
        '--ignore-label',
        nargs='+',
        type=whole_number(0, 2**16 - 1),
        default=FOLDER_ONLY['ignore_label'],
        metavar='N',
        help='values of mask pixels that belong to no class, beside 255',
    )
    add(
        '--val-share',
        type=share,
        default=FOLDER_ONLY['val_share'],
        metavar='SHARE',
        help='of the images for validation where the folder has no splits (default: %(default)s)',
    )
    add(
        '--group',
        metavar='REGEX',
        help="images whose names agree in it stay in one split, e.g. '(patient\\d+)'; training "
        'and validation are made anew, also where the folder has both',
    )
    add(
        '--split-seed',
        type=int,
        default=FOLDER_ONLY['split_seed'],
        metavar='N',
        help='another number makes other splits (default: %(default)s)',
    )


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds flags for what a config of own data says besides.

    Args:
        parser: Extended in-place.
    """
    group = parser.add_argument_group('what is made of it')
    group.add_argument(
        '--size',
        type=whole_number(64, 4096),
        metavar='PIXELS',
        help='of the longer side of resized images (default: that of most images, at most 1333)',
    )
    group.add_argument(
        '--weights',
        type=given_name,
        metavar='FILE',
        help='pretrained weights of the backbone: a file; download: its own, fetched once into '
        "torch's cache; or none (default: its own, if they are in checkpoints/ or in that cache)",
    )


def share(text: str, from_zero: bool = False) -> float:
    """Parses a number between 0 and 1; ``from_zero`` takes 0, too."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 < value < 1 or from_zero and value == 0):
        limits = 'from 0 to below 1' if from_zero else 'between 0 and 1'
        raise argparse.ArgumentTypeError(f'{shortened(text)} is no share {limits}')
    return value


def require_no_folder_flags(args: argparse.Namespace) -> None:
    """Raises UserError if a config is named and a flag says something of a folder."""
    said = [
        f'--{name.replace("_", "-")}'
        for name, default in FOLDER_ONLY.items()
        if getattr(args, name, default) != default
    ]
    if said:
        raise UserError(
            f'{", ".join(said)}: for a folder; {args.source} is a config, which says it itself'
        )


def request_of(args: argparse.Namespace, **more: Any) -> Any:
    """Makes a request of parsed flags.

    Args:
        args: Parsed flags.
        **more: Fields that have no flag here, or another value.
    """
    from attnpool_backbones.own_data.request import Request

    names = 'work_dir', 'weights', 'epochs', 'batch', 'lr', 'size', 'freeze', 'cfg_options'
    said = {name: getattr(args, name, None) for name in names}
    if getattr(args, 'workers', None):
        said['workers'] = args.workers
    return Request(
        folder=args.source,
        backbone=args.backbone,
        head=args.head,
        format=args.format,
        classes=args.classes,
        ignored=tuple(args.ignore_label),
        val_share=args.val_share,
        group=args.group,
        split_seed=args.split_seed,
        **{**said, **more},
    )


def choose_model(args: argparse.Namespace) -> Any:
    """Completes the flags of a subcommand that trains: a head for the labels that are there.

    Args:
        args: Parsed flags, changed in-place.

    Returns:
        The labels where they had to be read for that, as
        :func:`~attnpool_backbones.own_data.reading.read_labels` gives them; else None.

    Raises:
        UserError: If there are no labels that can be trained on.
    """
    from attnpool_backbones.own_data.reading import read_labels
    from attnpool_backbones.own_data.recognition import open_folder

    args.backbone = args.backbone or DEFAULT_BACKBONE
    if args.head is not None:
        return None
    folder = open_folder(args.source, getattr(args, 'cfg_options', None))
    for_masks = has_masks_only(folder, args.format)
    read = read_labels(request_of(args, batch=None), folder, for_masks)
    if for_masks:
        args.head, reason = 'upernet', 'masks of whole images'
    elif read[0].has_masks:
        args.head, reason = 'mask-rcnn', 'objects with masks'
    else:
        args.head, reason = 'faster-rcnn', 'objects with boxes'
    print(f'--head {args.head}: the labels are {reason}')
    return read


def choose_any_model(args: argparse.Namespace, for_masks: bool = False) -> 'Folder':
    """Completes the flags of a subcommand that only looks at labels.

    Args:
        args: Parsed flags, changed in-place.
        for_masks: Whether masks of images are to be looked at where there are objects too.

    Returns:
        The folder, opened.
    """
    from attnpool_backbones.own_data.recognition import open_folder

    folder = open_folder(args.source, getattr(args, 'cfg_options', None))
    args.backbone = args.backbone or 'resnet50'
    if args.head is None:
        for_masks = for_masks or has_masks_only(folder, args.format)
        args.head = 'upernet' if for_masks else 'faster-rcnn'
    return folder


def has_masks_only(folder: 'Folder', wanted: str | None) -> bool:
    """Tells a folder of images with masks from one with labels of objects.

    Args:
        folder: Opened.
        wanted: The format that the user says, None: any.
    """
    from attnpool_backbones.own_data.recognition import FORMATS, label_files

    if wanted is not None:
        return wanted == 'masks'
    # a project of VIA may lie beside the masks that were made by it
    return {name for name in FORMATS if label_files(folder, name)} - {'via'} == {'masks'}


def prepare_with_progress(request: 'Request', **options: Any) -> 'Prepared':
    """Prepares a folder, and shows how many images are checked.

    Args:
        request: What is asked for.
        **options: Of :func:`attnpool_backbones.own_data.preparing.prepare`.
    """
    from attnpool_backbones.own_data.preparing import prepare
    from attnpool_backbones.progress_bar import progress_bar

    with progress_bar('images') as show:
        return prepare(request, progress=show, **options)
