"""Measures time and memory of backbones, detectors and segmentors and compares them.

python tools/analysis_tools/benchmark.py --suite targets
python tools/analysis_tools/benchmark.py DeepViT:16b ResNet-50 Swin-T --task forward train
python tools/analysis_tools/benchmark.py configs/coatnet/CONFIG.py --memory --with-cp
python tools/analysis_tools/benchmark.py --peers --task forward train
"""

import argparse
import math
import os
import re
import shlex
import sys
from itertools import product
from pathlib import Path
from typing import Any

from attnpool_backbones.command_line import (
    MAX_PROCESSES,
    UserError,
    given_place,
    run_command,
    whole_number,
)

SUITES = (
    'targets', 'references', 'curves', 'layouts', 'dtypes', 'compiled', 'operators', 'end-to-end',
    'predict', 'nano', 'all',
)  # fmt: skip

MAX_PIXELS = 2**28


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measures time and memory. Results are kept in the folder --out: a run that '
        'was stopped goes on when called again, unless the code, --repeats, --warmup or --seconds '
        'changed. Report and tables have what this call asks for. Every other program slows the '
        'machine down.'
    )
    parser.add_argument(
        'models',
        nargs='*',
        metavar='MODEL',
        help='TYPE:ARCH of a backbone, e.g. DeepViT:16b; ResNet-50 or Swin-T (of mmdet); or a '
        'config of a detector or segmentor. They are measured side by side',
    )
    parser.add_argument(
        '--suite',
        choices=SUITES,
        help='targets: each family against its plain form (maps stored), memory at 800x1344; '
        'references: all families beside ResNet-50 and Swin-T; curves: cost over resolution; '
        'layouts, dtypes, compiled: what these give; operators: ours against the compiled ones of '
        'mmcv (OPS=compiled make setup); end-to-end: train iterations and predictions of detectors '
        "and segmentors beside those with mmdet's ResNet-50, and which part takes how long; "
        'predict: a folder of images, with reading and drawing, beside the model alone; '
        'nano: check that everything runs',
    )
    parser.add_argument(
        '--only', metavar='REGEX', help='the jobs whose name this finds; see --list'
    )
    parser.add_argument('--list', action='store_true', help='show the jobs and stop')

    group = parser.add_argument_group('peers')
    group.add_argument('--peers', action='store_true',
                       help='measure each MODEL (default: all that somebody else ships too) beside '
                       'timm, mmdet and official code of the same model, in NCHW and '
                       "channels_last. timm: pip install -e '.[peers]'; without torchvision a "
                       'stand-in serves its imports')  # fmt: skip
    group.add_argument('--official', type=given_place, metavar='DIR',
                       help="folder with clones of the authors' code, or with its files: "
                       'patchconvnet_models.py (deit), deep_vision_transformer.py (dvit_repo), '
                       'poolformer.py, metaformer_baselines.py, resnet_sge.py and the like '
                       '(PytorchInsight)')  # fmt: skip
    group.add_argument('--yardstick', type=given_place, metavar='DIR',
                       help='another checkout of this package, e.g. of git worktree add: its '
                       'models run in a process of their own beside ours')  # fmt: skip
    group.add_argument('--preload', type=given_place, metavar='LIBRARY',
                       help='measure under another allocator, a file or a library of the system, '
                       'e.g. libtcmalloc_minimal.so.4: this command runs itself again with '
                       'LD_PRELOAD')  # fmt: skip

    group = parser.add_argument_group('conditions, for MODEL')
    group.add_argument('--task', nargs='+', choices=('forward', 'train'), default=['forward'],
                       help='forward pass, train step or both (default: forward)')  # fmt: skip
    group.add_argument('--size', nargs='+', type=size, default=[(512, 512)], metavar='HxW',
                       help='pixels; from three sizes on a curve (default: 512x512)')  # fmt: skip
    group.add_argument(
        '--batch', type=whole_number(1, 2**16), default=1, help='images (default: 1)'
    )
    group.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32',
                       help='bfloat16: autocast (default: float32)')  # fmt: skip
    group.add_argument('--layout', choices=('contiguous', 'channels_last'), default='contiguous',
                       help='of the images in memory (default: contiguous)')  # fmt: skip
    group.add_argument('--compile', action='store_true', help='torch.compile the backbone')
    group.add_argument('--with-cp', action='store_true', help='activation checkpointing')
    group.add_argument('--live-norms', action='store_true',
                       help='train with live BatchNorm statistics')  # fmt: skip
    group.add_argument('--plain', action='store_true',
                       help='measure the plain form of each model beside it')  # fmt: skip
    group.add_argument('--memory', action='store_true', help='measure the peak memory, too')

    group = parser.add_argument_group('measuring')
    group.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='(default: cpu)')
    group.add_argument(
        '--threads',
        type=whole_number(1, MAX_PROCESSES),
        help="of torch (default: torch's own choice)",
    )
    group.add_argument('--repeats', type=whole_number(1, 10**6), default=7,
                       help='measured rounds; the median counts (default: 7)')  # fmt: skip
    group.add_argument(
        '--warmup', type=whole_number(0, 10**6), default=1, help='rounds before (default: 1)'
    )
    group.add_argument('--seconds', type=seconds, default=120,
                       help='begin no round later than this in a job, but measure two in any case '
                       '(default: 120)')  # fmt: skip
    group.add_argument('--keep-memory', action='store_true',
                       help='keep all memory that is freed, as caching allocators do (glibc): '
                       'otherwise large maps are fresh memory each time, and page faults part of '
                       'the times')  # fmt: skip
    group.add_argument('--time-limit', type=seconds, metavar='SECONDS',
                       help='begin no job later than this; call again for the rest')  # fmt: skip
    group.add_argument('--again', action='store_true', help='repeat what was measured before')
    group.add_argument('--out', type=given_place, default=Path('work_dirs/speed'), metavar='DIR',
                       help='folder of results and report (default: %(default)s)')  # fmt: skip
    group.add_argument('--publish', nargs='?', const='', metavar='PAGE',
                       help='put the table of targets and the report, or the table of --peers, '
                       'of operators, of whole models or of sizes, into docs/speed; '
                       'with --keep-memory only the report, into its folder '
                       'kept_memory; PAGE: only the table, into this file, which has a place '
                       'for it, <!-- default --> and <!-- /default -->, say')  # fmt: skip
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text[:60]}' is not HEIGHTxWIDTH, e.g. 800x1344")
    height, width = int(match[1][:9]), int(match[2][:9])
    if not 0 < height * width <= MAX_PIXELS:
        raise argparse.ArgumentTypeError(f"'{text[:60]}' has to have from 1 to {MAX_PIXELS} pixels")
    return height, width


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text[:60]}' is no number of seconds")
    return value


def chosen_jobs(args: argparse.Namespace) -> list:
    """Returns the jobs that the flags ask for."""
    from attnpool_backbones.benchmark.cases import Case, memory_job, time_job
    from attnpool_backbones.benchmark.suites import suite_jobs

    if not (args.models or args.suite or args.peers):
        raise UserError('nothing to measure: name a MODEL, a --suite or --peers; see --help')
    if args.peers:
        return chosen(peers_of(args), args.only)
    jobs = suite_jobs(args.suite) if args.suite else []
    forms = ('ours', 'plain') if args.plain else ('ours',)
    for pixels, task in product(args.size, args.task) if args.models else ():
        cases = [
            Case(model=model, form=form, task=task, size=pixels, **conditions(args))
            for model, form in product(args.models, forms)
        ]
        jobs.append(time_job(' '.join(args.models), cases))
        jobs += [memory_job(case) for case in cases if args.memory]
    return chosen(jobs, args.only)


def conditions(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what all cases of a call have in common."""
    return dict(
        batch=args.batch,
        dtype=args.dtype,
        layout=args.layout,
        compiled=args.compile,
        with_cp=args.with_cp,
        norm_eval=not args.live_norms,
    )


def peers_of(args: argparse.Namespace) -> list:
    """Returns the jobs of ``--peers``."""
    from attnpool_backbones.benchmark.cases import Case
    from attnpool_backbones.benchmark.peers import MODELS_WITH_PEERS, forms_of
    from attnpool_backbones.benchmark.suites import peer_jobs
    from attnpool_backbones.benchmark.yardstick import APART

    if args.suite or args.plain or args.memory or args.layout != 'contiguous':
        raise UserError('--peers goes without --suite, --plain, --memory and --layout')
    known = places(args)
    others = {form for model in args.models or MODELS_WITH_PEERS for form in forms_of(model, known)}
    if args.with_cp and (without := sorted(others - set(APART))):
        raise UserError(f'--with-cp: the models of {", ".join(without)} have no checkpointing here')
    for model in args.models:
        if not forms_of(model, known):
            raise UserError(f'--peers: nobody ships {model}, of {", ".join(MODELS_WITH_PEERS)}')
    cases = [
        Case(model=model, task=task, size=pixels, **conditions(args))
        for pixels, task, model in product(args.size, args.task, args.models or MODELS_WITH_PEERS)
    ]
    return peer_jobs(cases, known)


def places(args: argparse.Namespace) -> dict[str, Path]:
    """Returns the folders of ``--official`` and ``--yardstick``, those that are given."""
    given = dict(official=args.official, yardstick=args.yardstick)
    found = {form: folder.resolve() for form, folder in given.items() if folder is not None}
    for form, folder in found.items():
        if not folder.is_dir():
            raise UserError(f'--{form} {folder} is no folder')
    return found


def chosen(jobs: list, pattern: str | None) -> list:
    """Returns the jobs that ``--only`` finds."""
    try:
        only = re.compile(pattern or '')
    except re.error as error:
        raise UserError(f"--only '{pattern}' is no regular expression: {error}") from error
    found = [job for job in jobs if only.search(f'{job.quantity} of {job.name}')]
    if not found:
        raise UserError(f"--only '{pattern}' finds none of the {len(jobs)} jobs; see --list")
    return found


def preload(library: Path) -> None:
    """Replaces this process by itself with another allocator, unless it has that already.

    Args:
        library: A file, or the name of a library of the system.

    Raises:
        UserError: It is no file, or the system's loader did not take it.
    """
    # The loader takes a name without a slash for one of the system's libraries.
    name = os.path.abspath(library) if library.is_file() else str(library)
    if '/' in name and not library.is_file():
        raise UserError(f'--preload {library} is no file')
    if os.environ.get('LD_PRELOAD') != name:
        os.environ['LD_PRELOAD'] = name
        os.execv(sys.executable, [sys.executable, *sys.argv])
    # Links of the system's libraries lead to names that tell more of the version.
    loaded = os.path.realpath(name) if library.is_file() else f'/{name.partition(".so")[0]}.so'
    if loaded not in Path('/proc/self/maps').read_text():
        raise UserError(f'--preload {library} was not loaded: it is no library for this system')


def main() -> None:
    args = parse_args()
    if args.preload:
        preload(args.preload)

    import torch

    from attnpool_backbones.benchmark.publishing import publish
    from attnpool_backbones.benchmark.report import write_report
    from attnpool_backbones.benchmark.run import run_jobs
    from attnpool_backbones.launching.targets import writable_folder

    jobs = chosen_jobs(args)
    if args.list:
        for job in jobs:
            print(f'{job.quantity} of {job.name}')
        return
    page = Path(args.publish) if args.publish else None
    if page and not page.is_file():
        raise UserError(f'--publish {page} is no file')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch finds no GPU here')
    if args.threads:
        torch.set_num_threads(args.threads)
    given = sys.argv[1:]
    if '--publish' in given:  # tells where the result goes, not how it was measured
        at = given.index('--publish')
        del given[at : at + 1 + bool(args.publish)]
    command = shlex.join(['python', 'tools/analysis_tools/benchmark.py', *given])
    with writable_folder('--out', str(args.out)):
        results, machine, failures = run_jobs(
            jobs,
            args.out,
            args.device,
            lambda line: print(line, flush=True),
            args.repeats,
            args.warmup,
            args.seconds,
            args.time_limit,
            args.again,
            args.keep_memory,
            places(args),
            command,
        )
        if failures and not results:
            raise UserError('; '.join(failures))
    for file in write_report(args.out, results, machine, command):
        print(file)
    if args.publish is not None:
        publish(args.out, results, machine, command, Path.cwd(), page)
    if failures:
        raise UserError('; '.join(failures))


if __name__ == '__main__':
    sys.exit(run_command(main))
