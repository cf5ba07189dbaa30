"""Lists the backbones and heads that a model can be put together from.

attnpool models
attnpool models --backbone caformer_s18 --size 640    parameters and multiply-adds of each head
"""

import argparse

from attnpool_backbones.command_line import given_name, whole_number

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool models``."""
    parser.add_argument(
        '--backbone', type=given_name, help='count what this one costs under each head'
    )
    parser.add_argument(
        '--size',
        type=whole_number(32, 4096),
        default=640,
        help='side of the image in pixels (default: %(default)s)',
    )


def run(args: argparse.Namespace) -> None:
    """Carries out ``attnpool models``."""
    from rich.console import Console
    from rich.table import Table

    from attnpool_backbones.own_data.bases import HEADS, choose_bases, find_backbones
    from attnpool_backbones.own_data.model_costs import count_model

    if args.backbone is None:
        names = find_backbones()
        detectors = [name for name, head in HEADS.items() if not head.segments]
        segmentors = [name for name, head in HEADS.items() if head.segments]
        print(f'backbones: {", ".join(names)}')
        print(f'heads for detection: {", ".join(detectors)}')
        print(f'heads for segmentation: {", ".join(segmentors)}')
        return
    table = Table('head', 'parameters', f'multiply-adds at {args.size}x{args.size}')
    for head in able_heads(args.backbone):
        size = count_model(choose_bases(args.backbone, head), args.size)
        table.add_row(head, f'{size.parameters / 1e6:.1f} M', f'{size.macs / 1e9:.1f} G')
    Console().print(table)


def able_heads(backbone: str) -> list[str]:
    """Lists the heads that a backbone is made for."""
    from attnpool_backbones.command_line import UserError
    from attnpool_backbones.own_data.bases import HEADS, choose_bases

    heads = []
    failure: UserError | None = None
    for head in HEADS:
        try:
            choose_bases(backbone, head)
        except UserError as error:
            failure = error
        else:
            heads.append(head)
    if not heads:
        raise failure
    return heads
