"""What the checks of this package cost, with an interval; `python -m` this module measures it.

One process trains the same model twice, with all checks and with mmengine's own loop and hooks, or
loads the same file twice, with all checks and by ``torch.load``. The two take turns at every
iteration, on the same images, weights (the learning rate is 0) and random numbers, and each pair
gives a difference, so that a slower moment of the machine meets both. The interval is that of the
median difference: 95 % of 5000 samples of the pairs, drawn with replacement. Time is told by the
clock and of the processor, all threads together; who else is at work disturbs the second less.
``--pairs-file`` keeps the pairs and adds those of earlier runs by the same code and settings.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.benchmark.kept_results import kept_results
from attnpool_backbones.command_line import given_place, run_command, whole_number
from attnpool_backbones.config_files import source_digest
from attnpool_backbones.process_memory import keep_free_memory, return_free_memory

__all__ = ['interval', 'paired_seconds']

UNKEPT = ('pairs', 'seconds', 'pairs_file')
"""Arguments that pairs do not depend on."""
SAMPLES = 5000
LEAST = 10
"""Pairs that an interval needs: samples of fewer are too much alike."""
WARM_UP = 8
"""Pairs that do not count: a pass over the images."""


def paired_seconds(
    one: Callable[[], object],
    other: Callable[[], object],
    pairs: int,
    seconds: float,
    before: Callable[[], object] = lambda: None,
) -> list[tuple[float, ...]]:
    """Runs two things in turns, each one first in every other pair.

    Args:
        one: The first.
        other: The second.
        pairs: How often, after some that do not count.
        seconds: No pair begins later than so long after the first one.
        before: What to do before each of them, not counted. Default: nothing.

    Returns:
        How long each of the two took by the clock, and of the processor's time, a pair each.
    """
    found = []
    began = time.perf_counter()
    gc.disable()  # a collection would fall into the time of one
    try:
        for index in range(WARM_UP + pairs):
            if found and time.perf_counter() - began > seconds:
                break
            took = [0.0] * 4
            for which in (0, 1) if index % 2 else (1, 0):
                before()
                worked, started = time.process_time(), time.perf_counter()
                result = (one, other)[which]()
                took[which] = time.perf_counter() - started
                took[2 + which] = time.process_time() - worked
                del result  # whose memory is freed now
            if index >= WARM_UP:
                found.append(tuple(took))
            if index % WARM_UP == 0:
                gc.collect()
    finally:
        gc.enable()
    return found


def interval(pairs: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Returns by which share the first of pairs takes longer, and the 95 % interval of it.

    Args:
        pairs: Seconds.

    Returns:
        The median difference over the median of the second, its lower and its upper end.
    """
    first, second = np.asarray(pairs).T
    chosen = np.random.default_rng(0).integers(len(pairs), size=(SAMPLES, len(pairs)))
    medians = np.median((first - second)[chosen], 1) / np.median(second[chosen], 1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(first - second) / np.median(second)), float(low), float(high)


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', choices=('training', 'loading'))
    parser.add_argument('--pairs', type=whole_number(2, 10**6), default=200,
                        help='default: %(default)s')  # fmt: skip
    parser.add_argument('--seconds', type=whole_number(1, 10**6), default=75,
                        help='begin no pair later (default: %(default)s)')  # fmt: skip
    parser.add_argument('--side', type=whole_number(64, 1024), default=192,
                        help='of the images (default: %(default)s)')  # fmt: skip
    parser.add_argument('--batch', type=whole_number(1, 32), default=8,
                        help='images of an iteration (default: %(default)s)')  # fmt: skip
    parser.add_argument('--mebibytes', type=whole_number(1, 4096), default=162,
                        help='of the file to load (default: %(default)s)')  # fmt: skip
    parser.add_argument('--safetensors', action='store_true',
                        help='load a file of safetensors, beside their own reader')  # fmt: skip
    parser.add_argument('--beside-torch', action='store_true',
                        help='beside torch.load of a file with as many weights')  # fmt: skip
    parser.add_argument('--keep-memory', action='store_true',
                        help='keep memory that is freed: no page faults, of which a process that '
                        'loads one file has many')  # fmt: skip
    parser.add_argument('--without-isal', action='store_true',
                        help='load by checksums of zlib, as without isal')  # fmt: skip
    parser.add_argument('--pairs-file', type=given_place, metavar='FILE',
                        help='keep the pairs there, and count those that are there')  # fmt: skip
    return parser.parse_args()


def main() -> None:
    """Measures, and prints a line."""
    args = parse_args()
    if args.without_isal:
        sys.modules['isal'] = None
    if args.keep_memory:
        keep_free_memory()
    settings = {name: value for name, value in vars(args).items() if name not in UNKEPT}
    settings['code'] = source_digest()
    earlier = []
    if args.pairs_file:
        names = ('settings', 'pairs')
        earlier = kept_results(args.pairs_file, names, settings, 'name another file')
    with tempfile.TemporaryDirectory() as folder:
        pairs = [*measure(args, Path(folder)), *earlier]
    if args.pairs_file:
        content = json.dumps(dict(settings=settings, pairs=pairs))
        write_atomically(content.encode(), args.pairs_file)
    for name, first in ('', 0), (' of the processor', 2):
        times = [pair[first : first + 2] for pair in pairs]
        share, low, high = interval(times)
        ends = f'95 % interval {100 * low:+.2f} to {100 * high:+.2f} %'
        if len(pairs) < LEAST:
            ends = f'an interval needs {LEAST} pairs'
        checked, plain = (1000 * statistics.median(column) for column in zip(*times, strict=True))
        print(
            f'{args.what}: {checked:.1f} ms{name} with all checks, {plain:.1f} ms without, '
            f'{100 * share:+.2f} % ({ends}), {len(pairs)} pairs'
        )


def measure(args: argparse.Namespace, folder: Path) -> list[tuple[float, ...]]:
    """Returns the seconds of pairs, with all checks and with none.

    Args:
        args: Of the command line.
        folder: For the files.
    """
    # the checks choose their checksum when they are imported
    from attnpool_backbones.benchmark.checked_steps import (
        iterations,
        loads,
        same_numbers,
        write_checkpoint,
    )

    if args.what == 'training':
        forms = [iterations(folder, checked, args.side, args.batch) for checked in (True, False)]
        return paired_seconds(*forms, args.pairs, args.seconds, same_numbers())
    path = write_checkpoint(folder, args.mebibytes, args.safetensors)
    plain = write_checkpoint(folder, args.mebibytes) if args.beside_torch else path
    forms = [loads(path, True), loads(plain, False)]
    before = (lambda: None) if args.keep_memory else return_free_memory
    return paired_seconds(*forms, args.pairs, args.seconds, before)


if __name__ == '__main__':
    sys.exit(run_command(main))
