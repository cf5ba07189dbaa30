"""Sets up, trains and tests with every Python of this machine, the oldest and the newest torch.

python tools/misc/matrix.py                                 # all; goes on where a call was stopped
python tools/misc/matrix.py --python 3.12 --torch newest      # one row again
python tools/misc/matrix.py --python 3.12 --steps tests --keep  # in the environment of before
python tools/misc/matrix.py --python 3.14 --system DIR        # of a system of `debootstrap`
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from attnpool_backbones.atomic_files import write_atomically  # noqa: E402
from attnpool_backbones.command_line import (  # noqa: E402
    MAX_PROCESSES,
    UserError,
    given_place,
    run_command,
    whole_number,
)
from attnpool_backbones.launching.targets import require_target_folder  # noqa: E402
from attnpool_backbones.markdown import markdown_table, replace_section  # noqa: E402

PYTHONS = ('3.10', '3.11', '3.12', '3.13', '3.14')
TORCHES = {'oldest': 'torch==2.6.0', 'newest': 'torch', 'pinned': None}
"""What stands in requirements/base.txt; None leaves it as it is."""
FORK = {
    'mmengine': 'onedl-mmengine==0.10.12',
    'mmdet': 'onedl-mmdetection==3.5.1',
    'mmsegmentation': 'onedl-mmsegmentation==1.4.2',
    'mmcv-lite': 'onedl-mmcv==2.3.6',
}
"""Distributions of the fork, by those whose modules they have."""
UNBUILT = {('3.14', 'oldest'): 'torch 2.6 has no wheel for Python 3.14'}
STEPS = ('setup', 'quickstart', 'tests')
TESTED = ('tests/layers', 'tests/ops', 'tests/backbones')
NAME = 'patchconvnet-nano_slim'
SHORTEST = {
    f'configs/patchconvnet/mask-rcnn_{NAME}-fpn_digit-scenes.py': ('--epochs', '1'),
    f'configs/patchconvnet/upernet_{NAME}_digit-scenes.py': (
        '--cfg-options', 'train_cfg.max_iters=8', 'train_cfg.val_interval=8',
    ),
}  # fmt: skip
"""Config -> flags that make it train for a moment."""
RESULTS = ROOT / 'docs' / 'compatibility' / 'matrix.jsonl'
COLUMNS = ('stack', 'Python', 'torch', 'set-up', 'quickstart', 'tests', 'date')


@dataclass
class Row:
    """What was seen with one Python, one torch and one stack."""

    stack: str
    python: str
    wanted: str
    """Key of :data:`TORCHES`."""
    torch: str = ''
    setup: str = ''
    quickstart: str = ''
    tests: str = ''
    failed: list[str] = field(default_factory=list)
    """Names of tests."""
    date: str = ''

    @property
    def key(self) -> tuple[str, str, str]:
        """Tells the row from the others."""
        return self.stack, self.python, self.wanted

    @property
    def name(self) -> str:
        """Of the row's folder and log."""
        return '-'.join(self.key)

    def clone(self, folder: Path, system: Path) -> Path:
        """Returns where the row's copy is: in ``folder`` of ``system``."""
        return system / folder.relative_to('/') / self.name


def main() -> None:
    """Runs the rows that were asked for, and writes the table."""
    parser = argparse.ArgumentParser(
        description='Copies the clone, sets up an environment with each Python that is found and '
        'the oldest and the newest torch, and with the onedl-* fork; trains and tests the '
        "quickstart's detector and segmentor for an epoch on a few scenes, and runs the fast tests "
        f'of {", ".join(TESTED)}. Writes docs/compatibility.md.'
    )
    parser.add_argument('--python', choices=PYTHONS, help='only this one')
    parser.add_argument('--torch', choices=TORCHES, help='only this one')
    parser.add_argument('--stack', choices=('openmmlab', 'onedl'), help='only this one')
    parser.add_argument('--work-dir', type=given_place, default=Path('work_dirs/matrix'),
                        help='for copies and environments (default: %(default)s)')  # fmt: skip
    parser.add_argument('--system', type=given_place, default=Path('/'), metavar='DIR',
                        help='root of another system, for a Python that this one has not, e.g. of '
                        'debootstrap; as root, with /proc mounted there')  # fmt: skip
    parser.add_argument('--steps', nargs='+', choices=STEPS, default=STEPS,
                        help='only these; without setup, in an environment that --keep left '
                        '(default: all)')  # fmt: skip
    parser.add_argument('--processes', type=processes, default='auto',
                        help='of the tests (default: one a core, at most 8)')  # fmt: skip
    parser.add_argument('--keep', action='store_true', help='leave the environments there')
    args = parser.parse_args()

    if not args.system.is_dir():
        raise UserError(f'--system {args.system} is no folder')
    require_target_folder('--work-dir', str(args.work_dir))
    rows = {row.key: row for row in read_rows()}
    asked = bool(args.python or args.torch or args.stack or set(args.steps) != set(STEPS))
    # of a call that was stopped; what the page tells was seen by others
    progress = args.work_dir / 'done.txt'
    done = progress.read_text().split() if progress.exists() and not asked else []
    for row in all_rows():
        chosen = (row.python, row.wanted, row.stack)
        wanted = args.python, args.torch, args.stack
        if any(w not in (None, c) for w, c in zip(wanted, chosen, strict=True)):
            continue
        if row.name in done:
            continue
        if find_python(row.python, args.system) is None and row.key in rows:
            print(f'== {row.name}: no such Python here, what was seen of it stays', flush=True)
            continue
        if 'setup' not in args.steps:
            row = rows.get(row.key, row)
        run_row(row, args.work_dir.resolve(), args.system, args.steps, args.processes)
        rows = {**{r.key: r for r in read_rows()}, row.key: row}
        write_rows(rows)
        if not asked:
            progress.parent.mkdir(parents=True, exist_ok=True)
            with progress.open('a') as file:
                file.write(f'{row.name}\n')
        if not args.keep:
            shutil.rmtree(row.clone(args.work_dir.resolve(), args.system), ignore_errors=True)
    if not asked:
        progress.unlink(missing_ok=True)
    write_rows(rows)


def processes(text: str) -> str:
    """Parses how many processes pytest is to start."""
    return text if text == 'auto' else str(whole_number(1, MAX_PROCESSES)(text))


def all_rows() -> Iterator[Row]:
    """Yields the rows of the table, those of the fork last."""
    for python in PYTHONS:
        for torch in ('oldest', 'newest'):
            yield Row('openmmlab', python, torch)
    yield Row('onedl', '3.11', 'pinned')


def read_rows() -> list[Row]:
    """Reads what was seen before."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def write_rows(rows: dict[tuple[str, str, str], Row]) -> None:
    """Writes what was seen, and the table."""
    seen = [rows[row.key] for row in all_rows() if row.key in rows]
    lines = ''.join(json.dumps(asdict(row)) + '\n' for row in seen)
    write_atomically(lines.encode(), RESULTS)
    rows = [rows.get(row.key, replace(row, setup='not run yet')) for row in all_rows()]
    cells = [
        [row.stack, row.python, row.torch or row.wanted]
        + [getattr(row, step) or '-' for step in STEPS]
        + [row.date]
        for row in rows
    ]
    notes = [
        f'- {r.stack}, Python {r.python}, torch {r.torch}: {count} of `{test}`\n'
        for r in rows
        for test, count in Counter(name.partition('[')[0] for name in r.failed).items()
    ]
    text = markdown_table(COLUMNS, cells) + ('\nFailed:\n\n' + ''.join(notes) if notes else '')
    replace_section(ROOT / 'docs' / 'compatibility.md', 'matrix', text)


def run_row(row: Row, folder: Path, system: Path, steps: list[str], processes: str) -> None:
    """Fills a row; a step that fails ends it.

    Args:
        row: What to run, and what was seen before.
        folder: For its copy and its log.
        system: Where the Python is: root of this system, or of another one.
        steps: Names of :data:`STEPS`; the row's other cells stay.
        processes: How many run the tests.

    Raises:
        UserError: If there is no environment and none is to be made.
    """
    row.date = datetime.date.today().isoformat()
    for step in steps:
        setattr(row, step, '')
    interpreter = find_python(row.python, system)
    reason = UNBUILT.get((row.python, row.wanted)) or (
        None if interpreter else 'no such Python here'
    )
    print(
        f'== {row.stack}, Python {row.python}, {row.wanted} torch: {reason or "starts"}', flush=True
    )
    if reason:
        row.setup = f'not run: {reason}'
        return
    clone = row.clone(folder, system)
    if 'setup' in steps:
        shutil.rmtree(clone, ignore_errors=True)
    elif not (clone / '.venv').exists():
        raise UserError(f'{clone} has no environment; run the step setup with --keep first')
    copy_clone(clone)
    change_requirements(clone / 'requirements', row)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f'{row.name}.log'
    with log.open('a') as file:
        run = Steps(clone, system, file)
        try:
            if 'setup' in steps:
                row.setup = f'{run.run("bash", "tools/setup_env.sh", interpreter):.0f} s'
                row.torch = run.ask('import torch; print(torch.__version__)')
            if 'quickstart' in steps:
                row.quickstart = f'{quickstart(run):.0f} s'
            if 'tests' in steps:
                row.tests, row.failed = run.tests(processes)
        except subprocess.CalledProcessError as error:
            step = next(step for step in STEPS if step in steps and not getattr(row, step))
            setattr(row, step, f'failed: {error.cmd[1] if len(error.cmd) > 1 else error.cmd[0]}')
            print(f'see {log}', flush=True)
    print(f'   {row}', flush=True)


class Steps:
    """Runs commands of a copy in its environment.

    Args:
        clone: The copy.
        system: Root of the system in which it is.
        log: Gets what they say.
    """

    def __init__(self, clone: Path, system: Path, log: object) -> None:
        self.clone = clone
        self.log = log
        inside = Path('/') / clone.relative_to(system)
        self.prefix = within(system, inside)
        self.python = str(inside / '.venv' / 'bin' / 'python')
        self.env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}

    def run(self, *command: str) -> float:
        """Runs a command; returns how many seconds it took."""
        started = time.monotonic()
        self.log.write(f'$ {" ".join(command)}\n')
        self.log.flush()
        try:
            subprocess.run(
                [*self.prefix, *command],
                env=self.env,
                stdout=self.log,
                stderr=self.log,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            error.cmd = command
            raise
        return time.monotonic() - started

    def ask(self, code: str) -> str:
        """Returns what a line of Python prints."""
        command = [*self.prefix, self.python, '-c', code]
        return subprocess.check_output(command, env=self.env, text=True).strip()

    def tests(self, processes: str) -> tuple[str, list[str]]:
        """Runs the tests; returns the last line in short, and the names of those that failed."""
        cores = ['-n', processes, '--maxprocesses', '8', '--dist', 'worksteal']
        command = [self.python, '-m', 'pytest', '-q', '-m', 'not slow', *cores, *TESTED]
        done = subprocess.run(
            [*self.prefix, *command], env=self.env, text=True, capture_output=True, check=False
        )
        self.log.write(done.stdout + done.stderr)
        last = done.stdout.rstrip().rpartition('\n')[2]
        found = re.findall(r'(\d+) (passed|failed|errors?)', last)
        counts = ', '.join(f'{number} {what}' for number, what in found) or 'did not run'
        return counts, re.findall(r'^(?:FAILED|ERROR) (\S+)', done.stdout, re.MULTILINE)


def quickstart(steps: Steps) -> float:
    """Trains and evaluates the quickstart's models for a moment, on a few scenes."""
    tool = 'tools/dataset_converters/make_digit_scenes.py'
    seconds = steps.run(steps.python, tool, '--train', '32', '--val', '8')
    for config, flags in SHORTEST.items():
        seconds += steps.run(steps.python, 'tools/train.py', config, '--work-dir', 'run', *flags)
        checkpoint = (steps.clone / 'run' / 'last_checkpoint').read_text().strip()
        seconds += steps.run(steps.python, 'tools/test.py', config, checkpoint)
        shutil.rmtree(steps.clone / 'run')
    return seconds


def within(system: Path, folder: Path = Path('/')) -> list[str]:
    """Returns the words before a command that runs in a folder of a system."""
    change = ['env', f'--chdir={folder}']
    return change if system == Path('/') else ['chroot', str(system), *change]


def find_python(version: str, system: Path) -> str | None:
    """Returns an interpreter of a version that runs, None if there is none."""
    managed = sorted(Path.home().glob(f'.pyenv/versions/{version}.*/bin/python'))
    for path in (*map(str, managed), f'python{version}'):
        command = [*within(system), path, '-c', '']
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return path
    return None


def copy_clone(target: Path) -> None:
    """Copies what git knows, and new files that it does not ignore."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    for name in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def change_requirements(folder: Path, row: Row) -> None:
    """Puts the wanted torch and stack into the lists of a copy."""
    for path in folder.glob('*.txt'):
        text = path.read_text()
        if TORCHES[row.wanted]:
            text = re.sub(r'^torch==.*$', TORCHES[row.wanted], text, flags=re.MULTILINE)
        if row.stack == 'onedl':
            for name, other in FORK.items():
                text = re.sub(rf'^{name}==.*$', other, text, flags=re.MULTILINE)
        path.write_text(text)


def command() -> None:
    """Runs in a clone only."""
    if not (ROOT / '.git').exists():
        raise UserError(f'{ROOT} is no clone of attnpool_backbones')
    main()


if __name__ == '__main__':
    sys.exit(run_command(command))
