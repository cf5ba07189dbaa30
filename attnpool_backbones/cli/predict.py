"""Runs a trained model on images, a video, a camera or a stream.

    attnpool predict work_dirs/photos_mask-rcnn_caformer-s18 photos/new --out predictions
    attnpool predict CONFIG 'photos/*.jpg' --checkpoint epoch_12.pth --save pictures coco
    attnpool predict model.onnx photos/new
    attnpool predict RUN video.mp4
    attnpool predict RUN camera:0
    cat photo.jpg | attnpool predict RUN - --out -

The folder gets pictures (or a video) with the predictions drawn, and predictions.jsonl with a line
for each image. With `--out -` these lines go to standard output and nothing else does.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from attnpool_backbones.cli.own_data_arguments import share
from attnpool_backbones.command_line import MAX_PROCESSES, UserError, given_name, whole_number
from attnpool_backbones.progress_bar import progress_bar

__all__ = ['add_arguments', 'run']

NOBODY_READS = 141  # what shells give a command whose output is not wanted any more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool predict``."""
    from attnpool_backbones.inference.writing import KINDS
    from attnpool_backbones.launching.options import CfgOptions

    add = parser.add_argument
    add(
        'model',
        type=given_name,
        metavar='MODEL',
        help='folder of a run, a config, or a file of attnpool export',
    )
    add(
        'source',
        type=given_name,
        metavar='SOURCE',
        help="an image, a folder, a pattern in quotes ('photos/*.jpg'), a video, camera:0, the "
        'address of a stream or an image, or - for an image or for paths on standard input',
    )
    add(
        '--checkpoint',
        type=given_name,
        help='of the config (default: the best of the run, else the last)',
    )
    add(
        '--out',
        type=given_name,
        default='predictions',
        metavar='FOLDER|-',
        help='default: %(default)s',
    )
    add(
        '--save',
        nargs='+',
        choices=KINDS,
        default=['pictures', 'json'],
        help='what is written: pictures or a video, lines of JSON, results for the evaluation of '
        'COCO, label maps, class maps of an image-level head (default: pictures json)',
    )
    add(
        '--score',
        type=partial(share, from_zero=True),
        default=0.3,
        help='smallest of an object in all files (default: %(default)s; 0.001 where --save coco is '
        'to be evaluated)',
    )
    add('--classes', nargs='+', metavar='NAME', help='only these')
    add(
        '--batch',
        type=whole_number(1),
        default=1,
        metavar='N',
        help='images the model sees at once',
    )
    add(
        '--slice',
        type=whole_number(1),
        metavar='PIXELS',
        help='cut large images into overlapping squares of this side (needs sahi)',
    )
    add(
        '--overlap',
        type=partial(share, from_zero=True),
        default=0.2,
        metavar='SHARE',
        help='of the side that neighbouring slices have in common (default: %(default)s)',
    )
    add(
        '--annotations',
        metavar='FILE',
        help='COCO file that numbers images and categories for --save coco',
    )
    add(
        '--device',
        help='cpu, cuda, cuda:1 (default: cuda where there is one; for an exported file cpu)',
    )
    add(
        '--threads',
        type=whole_number(0, MAX_PROCESSES),
        metavar='N',
        help='that read images; 0: reading, predicting and writing in turn (default: 2, or where '
        'the model computes on all cores: two batches at once, each on half of them)',
    )
    add('--limit', type=whole_number(1), metavar='N', help='stop after so many images')
    add('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='override settings of the config')  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Carries out ``attnpool predict``; exit code 1: an image was not read, written or numbered."""
    from attnpool_backbones.engine.work_folder_lock import claimed
    from attnpool_backbones.inference.loading import find_model_files, is_exported, max_pixels_of
    from attnpool_backbones.inference.sources import open_source
    from attnpool_backbones.launching.targets import writable_folder

    to_stdout = args.out == '-'
    # a source that is not there is told before the model is loaded and a folder is made
    max_pixels = max_pixels_of(args.model, args.checkpoint, args.cfg_options)
    out = None if to_stdout else Path(args.out)
    source = open_source(args.source, max_pixels=max_pixels, out=out)
    if source.rate is not None:
        # who wants fewer frames does not ask whether there are more
        source = replace(source, frames=islice(source.frames, args.limit))
    if args.annotations is not None and not os.path.isfile(args.annotations):
        raise UserError(f'--annotations {args.annotations}: there is no such file')
    if not is_exported(args.model):
        args.checkpoint = find_model_files(args.model, args.checkpoint)[1]
        print(f'checkpoint: {args.checkpoint}', file=sys.stderr)
    if to_stdout:
        return _predict(args, source, to_stdout)
    with writable_folder('--out', args.out), claimed(args.out, '--out'):
        return _predict(args, source, to_stdout)


def _predict(args: argparse.Namespace, source: Any, to_stdout: bool) -> int:
    """Predicts on an opened source and writes the predictions."""
    from attnpool_backbones.inference.loading import load
    from attnpool_backbones.inference.predictor import Options, Speed

    model = load(args.model, args.checkpoint, args.device, args.cfg_options)
    options = Options(args.score, args.classes, args.batch, args.threads, args.slice, args.overlap)
    speed = Speed()
    started = time.perf_counter()
    if to_stdout:
        try:
            for _, prediction in islice(model.run(source, options, speed), args.limit):
                print(json.dumps(prediction.to_dict(), ensure_ascii=False), flush=True)
        except BrokenPipeError:  # as after | head -1
            # Python flushes once more at its end, and would tell of the same error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return NOBODY_READS
        written, faults, notes = [], [], []
    else:
        written, faults, notes = _write(args, model, source, options, speed)
    if source.left_out:
        notes.append(f'predictions of an earlier run, left out: {source.left_out}')
    if source.others:
        notes.append(f'no images by their names, left out: {_endings(source.others)}')
    _tell(speed, time.perf_counter() - started, written, [*faults, *notes])
    return 1 if speed.unreadable or faults else 0


def _endings(others: Mapping[str, int]) -> str:
    """Words how many files have which ending, the most frequent first."""
    order = sorted(others, key=lambda ending: (-others[ending], ending))
    words = [f'{others[ending]} {ending or "without an ending"}' for ending in order]
    return ', '.join(words[:5]) + (', ...' if words[5:] else '')


def _write(
    args: argparse.Namespace, model: Any, source: Any, options: Any, speed: Any
) -> tuple[list[Path], list[str], list[str]]:
    """Writes all predictions while the model goes on, with progress on the screen.

    Returns:
        What was written, lines about what was not, and lines about what was replaced or removed.
    """
    from attnpool_backbones.inference.running import predict_and_write
    from attnpool_backbones.inference.writing import Outputs
    from attnpool_backbones.stop_signals import Interruption

    outputs = Outputs(
        Path(args.out), args.save, model.is_detector, model.classes, source.rate, args.annotations,
        model.has_tags, model.is_tagger, source.files,
    )  # fmt: skip
    total = min((n for n in (source.count, args.limit) if n is not None), default=None)
    done = count(1)
    with Interruption() as interruption:
        try:
            with progress_bar('images') as show:
                show(0, total)
                predict_and_write(
                    model, source, options, outputs, speed, args.limit,
                    lambda: show(next(done), total),
                )  # fmt: skip
        finally:
            # what was predicted before a signal or an error is kept
            interruption.finishing = True
            written = outputs.close()
    faults = [f'not in --annotations, no results of COCO: {name}' for name in outputs.unlisted]
    faults += [f'not written: {reason}' for reason in outputs.unwritten]
    notes = [f'removed, unfinished by a run that was killed: {path}' for path in outputs.removed]
    notes += [f'replaced, of an earlier run: {path}' for path in outputs.replaced]
    return written, faults, notes


def _tell(speed: Any, seconds: float, written: list[Path], notes: list[str]) -> None:
    """Says what was done and how fast, on standard error, where no output goes."""
    if not speed.images and not speed.unreadable:
        raise UserError('no images came from the source')
    lines = [f'unreadable, left out: {name}' for name in speed.unreadable]
    lines += notes
    if speed.images:
        rate, alone = speed.images / seconds, speed.images / max(speed.forward, 1e-9)
        lines.append(
            f'{speed.images} images in {seconds:.1f} s: {rate:.2f} images/s, the model alone '
            f'{alone:.2f} images/s'
        )
    lines += [f'written: {path}' for path in written]
    print('\n'.join(lines), file=sys.stderr)
