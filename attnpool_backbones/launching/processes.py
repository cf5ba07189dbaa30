"""Starts the processes of a run on this machine, and ends with them.

    python -m attnpool_backbones.launching.processes --nproc-per-node 2 tools/train.py CONFIG ...

Takes the options of ``torchrun`` that a fixed number of processes needs. What differs: signals
reach every process once, and the launcher waits until all have saved; its exit code is theirs; when
one is killed the others are ended, and one line, the last on the screen, says which. Processes end
when the launcher is killed.
"""

import argparse
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import Any

from attnpool_backbones.command_line import MAX_PROCESSES, whole_number
from attnpool_backbones.stop_signals import (
    SAME,
    exit_code_of,
    heeded_signals,
    signal_name,
)

__all__ = ['Group', 'main', 'run_group', 'taken_port']

POLL = 0.05
GRACE = 5.0
"""Seconds for the other processes to end by themselves when one has failed."""


class Group:
    """The processes of one machine.

    Args:
        command: The program and its arguments, the same for all.
        count: How many processes, the same on all machines.
        node: Number of this machine. Default: 0.
        nodes: How many machines. Default: 1.
        address: Name of machine 0. Default: this machine.
        port: Free there. Default: 0, any that is free, on one machine.
    """

    def __init__(
        self,
        command: list[str],
        count: int,
        node: int = 0,
        nodes: int = 1,
        address: str = '127.0.0.1',
        port: int = 0,
    ) -> None:
        self.stopping = 0
        self._stopped_at = 0.0
        common = dict(
            os.environ,
            WORLD_SIZE=str(count * nodes),
            LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR=address,
            MASTER_PORT=str(port or free_port()),
        )
        if count > 1:
            # each would start a thread for every core
            common.setdefault('OMP_NUM_THREADS', '1')
        self.first = node * count
        self.processes = [
            subprocess.Popen(
                [sys.executable, '-u', *command],
                env=dict(common, RANK=str(self.first + local), LOCAL_RANK=str(local)),
                # a terminal's Ctrl-C comes through the launcher, once
                start_new_session=True,
            )
            for local in range(count)
        ]

    def pass_on(self, number: int, frame: FrameType | None = None) -> None:
        """Sends a signal to all processes; a second one ends them at once."""
        now = time.monotonic()
        if not self.stopping:
            self.stopping, self._stopped_at = number, now
            for process in self.processes:
                process.send_signal(number)
        elif now - self._stopped_at > SAME:
            self.kill()

    def kill(self) -> None:
        """Ends every process, with all that it started."""
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # nothing is left of it

    def wait(self) -> int:
        """Waits for the end of all processes.

        Returns:
            The exit code: 0, that of the process that failed first, or 128 and the signal that
            stopped or killed them.
        """
        failed = None
        deadline = float('inf')
        while any(process.poll() is None for process in self.processes):
            if failed is None and not self.stopping:
                failed = self._failed()
                deadline = time.monotonic() + GRACE if failed else deadline
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(POLL)
        failed = failed or self._failed()
        self.kill()  # what processes that died have left
        if self.stopping:
            codes = {process.returncode for process in self.processes}
            return 0 if codes == {0} else exit_code_of(self.stopping)
        if failed is None:
            return 0
        return self._tell(failed)

    def _failed(self) -> subprocess.Popen | None:
        """Returns a process that ended badly; one that was killed is the cause of other ends."""
        ended = [process for process in self.processes if process.poll()]
        return min(ended, key=lambda process: process.returncode, default=None)

    def _tell(self, failed: subprocess.Popen) -> int:
        rank = self.first + self.processes.index(failed)
        code = failed.returncode
        if code < 0:
            memory = ' (out of memory?)' if code == -signal.SIGKILL else ''
            how, code = f'was killed by {signal_name(-code)}{memory}', exit_code_of(-code)
        else:
            how = f'ended with exit code {code}, its message is above'
        others = ' and the others were ended' if len(self.processes) > 1 else ''
        print(
            f'error: process {rank} (pid {failed.pid}) {how}{others}; a training goes on from its '
            'last checkpoint by the same command with --resume auto',
            file=sys.stderr,
            flush=True,
        )
        return code


def run_group(command: list[str], count: int, *where: Any) -> int:
    """Starts processes, hands them the signals that this one gets, and waits for their end.

    The handlers of the signals stay.

    Args:
        command: As :class:`Group` takes it, as all that follows.
        count: How many processes.
        *where: Of the other machines. Default: there are none.

    Returns:
        The exit code, as of :meth:`Group.wait`.
    """
    # a signal between two starts would leave the first process alone
    early: list[int] = []
    heeded = heeded_signals()
    for number in heeded:
        signal.signal(number, lambda number, frame: early.append(number))
    group = Group(command, count, *where)
    for number in heeded:
        signal.signal(number, group.pass_on)
    if early:
        group.pass_on(early[0])
    return group.wait()


def free_port() -> int:
    """Returns a port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def is_taken(port: int) -> bool:
    """Tells whether somebody listens to a port of this machine."""
    with socket.socket() as probe:
        # what ended a moment ago is no obstacle
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('', port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def taken_port(port: int | str) -> str:
    """Words that the processes of a run cannot meet at a port."""
    return (
        f'port {port} of this machine is taken, perhaps by another run; name a free one: PORT for '
        'tools/dist_*.sh and tools/slurm_*.sh, --master-port for launchers'
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Default: those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog='python -m attnpool_backbones.launching.processes',
        description='Starts the processes of a run on this machine, and ends with them.',
    )
    parser.add_argument(
        '--nproc-per-node',
        type=whole_number(1, MAX_PROCESSES),
        required=True,
        help='number of processes, the same on all machines',
    )
    parser.add_argument('--nnodes', type=int, default=1, help='number of machines (default: 1)')
    parser.add_argument('--node-rank', type=int, default=0, help='number of this machine, from 0')
    parser.add_argument('--master-addr', default='127.0.0.1', help='name of machine 0')
    parser.add_argument(
        '--master-port',
        type=whole_number(0, 65535),
        default=0,
        help='free port of machine 0 (default: any)',
    )
    parser.add_argument('script', help='the program')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='its arguments')
    args = parser.parse_args(arguments)
    if not 0 <= args.node_rank < args.nnodes:
        parser.error('--node-rank is from 0 on and below --nnodes')
    if args.nnodes > 1 and not args.master_port:
        parser.error('several machines need one --master-port')
    # a process that is not the first would meet those of the other run there
    if args.master_port and args.node_rank == 0 and is_taken(args.master_port):
        parser.error(taken_port(args.master_port))
    return run_group(
        [args.script, *args.arguments],
        args.nproc_per_node,
        args.node_rank,
        args.nnodes,
        args.master_addr,
        args.master_port,
    )


if __name__ == '__main__':
    sys.exit(main())
