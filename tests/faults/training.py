"""Runs the tiny training as a process, or several, that a test may hurt."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.patience import comes_true

REPO = Path(__file__).resolve().parents[2]


started: list[subprocess.Popen] = []
"""Processes that :func:`end_all` has not ended yet."""


class Training:
    """A running training.

    Args:
        folder: Its work folder.
        processes: How many there are; 0 is one without a launcher.
        limits: Run by ``prlimit`` before, for instance ``['--fsize=100000']``.
        nohup: Whether it is started by ``nohup``.
        group: What ``srun`` and ``mpirun`` tell a process that they start: its rank, their number
            and where they meet.
        words: Command line of ``attnpool`` to run instead of the tiny training. Default: None.
        **settings: Of :mod:`tests.faults.tiny_train`.
    """

    def __init__(
        self,
        folder: Path,
        processes: int = 0,
        limits: tuple = (),
        nohup: bool = False,
        group: Mapping[str, str] = MappingProxyType({}),
        words: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        command = [sys.executable, '-m', 'attnpool_backbones', *words]
        if not words:
            launcher = [sys.executable]
            if processes:
                module = 'attnpool_backbones.launching.processes'
                launcher += ['-m', module, f'--nproc-per-node={processes}']
            if processes or group:
                settings['launcher'] = 'pytorch'
            program = str(REPO / 'tests' / 'faults' / 'tiny_train.py')
            command = [*launcher, program, str(folder), json.dumps(settings)]
        if limits:
            command = ['prlimit', *limits, *command]
        if nohup:
            command = ['nohup', *command]
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            env=dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS='1', **group),
            cwd=folder.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(self.process)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.strip():
                self.lines.append(line.rstrip())

    def wait_for(self, text: str, count: int = 1, timeout: float = 120) -> None:
        """Waits until a line of that text was printed some times."""

        def is_printed() -> bool:
            printed = sum(line.startswith(text) for line in list(self.lines)) >= count
            assert printed or self.process.poll() is None, self.output
            return printed

        assert comes_true(is_printed, timeout), self.output

    def end(self, timeout: float = 180) -> int:
        """Waits for the end and returns the exit code."""
        assert comes_true(lambda: self.process.poll() is not None, timeout), self.output
        self.reader.join(10)
        return self.process.returncode

    def kill(self) -> None:
        """Kills the process, or the launcher, alone."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    @property
    def output(self) -> str:
        """All that was printed."""
        return '\n'.join(self.lines)

    @property
    def digest(self) -> str:
        """Digest of weights, losses and learning rates, and the best score."""
        return re.search(r'digest .*', self.output).group()

    def children(self) -> list[int]:
        """Numbers of the processes that the process has started."""
        return children_of(self.process.pid)


def children_of(pid: int) -> list[int]:
    """Returns the numbers of a process's children."""
    tasks = Path(f'/proc/{pid}/task').glob('*/children')
    return [int(number) for task in tasks for number in task.read_text().split()]


def end_all() -> None:
    """Kills the processes in :data:`started` that a failed test has left, and their children."""
    while started:
        process = started.pop()
        if process.poll() is None:
            for number in (*children_of(process.pid), process.pid):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            process.wait()


def train(folder: Path, **settings: Any) -> Training:
    """Trains to the end."""
    training = Training(folder, **settings)
    assert training.end() == 0, training.output
    return training
