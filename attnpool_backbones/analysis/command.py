"""Draws a figure of a training or a trained model: how it learnt, where it looks, what it costs.

    attnpool figure training work_dirs/RUN
    attnpool figure pooling work_dirs/RUN --images photos
    attnpool figure pooling s60_multi_finetune_1k.pth --images dog.jpg --top 4
    attnpool figure query CoAtNet:0 --checkpoint FILE --images dog.jpg --at 120,80 --block 4
    attnpool figure gates SGE_RESNET50.pth --images dog.jpg --beside RESNET50.pth
    attnpool figure collapse DeepViT:16b --checkpoint FILE --images photos --limit 8
    attnpool figure activations SGE_RESNET50.pth --images photos --limit 1000
    attnpool figure mixers pool attention spatial_fc
    attnpool figure trade-off docs/benchmark/results.csv

A model is the folder of a run, a config (with --checkpoint), TYPE:ARCH of a backbone (with
--checkpoint), or an official or own checkpoint file alone. Each figure is a picture KIND.png in the
folder --out, the numbers behind it as KIND.json, and one line that says how to read it.
"""

import argparse
import re
from importlib import import_module
from types import ModuleType

from attnpool_backbones.command_line import given_name, shortened, whole_number

__all__ = ['KINDS', 'add_arguments', 'image_size', 'parser_of_figures', 'run']

KINDS: dict[str, str] = dict(
    training='losses, learning rate and scores of runs as they went',
    pooling='where attention pooling looks: one map, or one of each class in its colour',
    query='what a pixel attends to; CoAtNet: the static and the adaptive part apart',
    gates='gates of SGE, CBAM, BAM, SE, SK and GC, feature norms before and after them',
    collapse='how alike the attention maps of blocks and heads are, by depth',
    mixers='time, memory and MACs of token mixers against the number of tokens',
    activations='activations before and after SGE over a data set, with intervals',
    **{'trade-off': 'accuracy against parameters, MACs, memory and time, with the Pareto front'},
)
"""Kind -> what it shows; each is a module of this package."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand for each kind."""
    kinds = parser.add_subparsers(dest='kind', metavar='KIND', required=True)
    for kind, purpose in KINDS.items():
        module = _module_of(kind)
        one = kinds.add_parser(
            kind,
            help=purpose,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if getattr(module, 'TAKES_IMAGES', True):
            _add_common(one)
        one.add_argument(
            '--out',
            type=given_name,
            default='figures',
            metavar='FOLDER',
            help='default: %(default)s',
        )
        module.add_arguments(one)


def _module_of(kind: str) -> ModuleType:
    return import_module(f'attnpool_backbones.analysis.{kind.replace("-", "_")}')


def parser_of_figures() -> argparse.ArgumentParser:
    """Returns a parser of what follows ``attnpool figure``."""
    parser = argparse.ArgumentParser('attnpool figure')
    add_arguments(parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        'model',
        type=given_name,
        metavar='MODEL',
        help='folder of a run, config, TYPE:ARCH, or checkpoint file',
    )
    add(
        '--checkpoint',
        metavar='FILE',
        help='of a config (default: the best of its run, else the last) or of TYPE:ARCH',
    )
    add(
        '--images',
        type=given_name,
        required=True,
        metavar='SOURCE',
        help='image, folder, pattern in quotes, or train, val or test: a data set of the config',
    )
    add(
        '--limit',
        type=whole_number(1),
        default=4,
        metavar='N',
        help='how many images at most, evenly spaced through the source (default: %(default)s)',
    )
    add(
        '--size',
        type=image_size,
        metavar='PIXELS|HxW',
        help='of the images of a backbone alone: short side, or both (default: 224)',
    )
    add('--random-weights', action='store_true', help='look at a model as it is initialised')
    add('--device', default='cpu', help='cpu, cuda, cuda:1 (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Draws and writes the figure."""
    from attnpool_backbones.analysis.drawing import save
    from attnpool_backbones.launching.targets import writable_folder

    module = _module_of(args.kind)
    with writable_folder('--out', args.out):
        drawing = module.draw(args)
    for file in save(drawing, args.out, args.kind):
        print(file)
    print(drawing.reading)


def image_size(text: str) -> int | tuple[int, int]:
    """Reads PIXELS or HEIGHTxWIDTH."""
    from attnpool_backbones.datasets.limits import MAX_PIXELS

    match = re.fullmatch(r'([0-9]{1,6})(?:x([0-9]{1,6}))?', text)
    sides = [int(n) for n in match.groups() if n] if match else []
    if not match or min(sides) < 32 or sides[0] * sides[-1] > MAX_PIXELS:
        raise argparse.ArgumentTypeError(
            f'{shortened(text)} is no PIXELS or HEIGHTxWIDTH from 32 on and of up to {MAX_PIXELS} '
            'pixels'
        )
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
