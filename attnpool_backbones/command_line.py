"""How command lines end: with one message for what the user can put right, without a traceback."""

import argparse
import errno
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from attnpool_backbones.compatibility import (
    IncompatibleEnvironment,
    check_environment,
    missing_module,
)
from attnpool_backbones.process_lifetime import end_now

__all__ = [
    'MAX_PROCESSES',
    'MAX_SEED',
    'UserError',
    'exit_command',
    'given_name',
    'given_place',
    'is_config',
    'is_lost_partner',
    'line_of',
    'number_above_zero',
    'run_command',
    'shortened',
    'whole_number',
]


class UserError(Exception):
    """Something the user can put right; the message says what and how."""


MAX_PROCESSES = 1024
"""That one machine is asked to run, of whatever kind; more is a mistake in typing."""
LARGEST = 10**9
"""That a count may be meant to be."""
MAX_SEED = 2**32 - 1
"""Of numpy."""
INTERRUPTED = 130  # what shells give a command that Ctrl-C ended
ANOTHER_ENDED = 3  # of a process whose partners are gone

LOST_PARTNER = r'gloo|NCCL|ncclRemoteError|[Cc]onnection (closed|reset|refused)'

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""What a disk does to whoever writes, whatever and wherever."""
PATH_ERRORS = (
    errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip
"""What a system answers to a path that cannot be meant, or not by this user."""


def message_of(error: Exception) -> str:
    """Returns what an error says, without the traceback of a process that loads data."""
    text = str(error)
    if 'Original Traceback' not in text:
        return text
    last = text.rstrip().rpartition('\n')[2]
    return last.partition(': ')[2] or last


def line_of(error: Exception, last: bool = False) -> str:
    """Returns one line of what an error says, up to 300 characters; its type if it says nothing.

    Args:
        error: Of another library, for instance.
        last: Whether it is the last line. Default: False, the first one.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if last else 0][:300]


def is_lost_partner(error: Exception) -> bool:
    """Tells whether an error says that another process of a distributed run is gone."""
    is_of_several = isinstance(error, RuntimeError) and 'RANK' in os.environ
    return is_of_several and re.search(LOST_PARTNER, str(error)) is not None


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Returns a parser of whole numbers for argparse.

    Args:
        least: The smallest that is taken.
        most: The largest. Default: None, whatever a count may be meant to be, a thousand millions.
    """
    end = 'on' if most is None else f'to {most}'

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(
                f'{shortened(text)} is no whole number from {least} {end}'
            )
        if most is None and value > LARGEST:
            raise argparse.ArgumentTypeError(f'{shortened(text)} is more than {LARGEST}')
        return value

    return parse


def number_above_zero(text: str) -> float:
    """Parses a finite number above 0 for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f'{shortened(text)} is no number above 0')
    return value


def shortened(value: Any) -> str:
    """Returns a value as text, cut if it is long."""
    try:
        text = repr(value)
    except RecursionError:
        text = f'of type {type(value).__name__}'
    return text if len(text) <= 60 else f'{text[:57]}...'


def is_config(source: str) -> bool:
    """Tells a config from a folder or a model."""
    return source.endswith('.py')


def given_name(text: str) -> str:
    """Parses a name of a file, folder or model for argparse.

    Raises:
        ArgumentTypeError: If it is empty, as that of an unset variable of a shell is.
    """
    if not text:
        raise argparse.ArgumentTypeError('the name is empty')
    return text


def given_place(text: str) -> Path:
    """Parses the path of a file or folder of this machine for argparse.

    Raises:
        ArgumentTypeError: If it is empty, or an address.
    """
    if '://' in given_name(text):
        raise argparse.ArgumentTypeError(f'{text[:200]} is an address, no place of this machine')
    return Path(text)


def run_command(command: Callable[[], object], after_interrupt: str = '') -> int:
    """Runs a command in an environment that can run it.

    Args:
        command: Takes no arguments, and may return an exit code. It should import what it needs
            itself, so that a missing package ends with a message too.
        after_interrupt: What to tell who stopped it with Ctrl-C. Default: nothing.

    Returns:
        Exit code: 0 or what the command returns, or after a message on stderr 2, or 130 if it was
        stopped with Ctrl-C, or 3 if another process of a distributed run was lost.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            # a file may have a name that is no text
            stream.reconfigure(errors='backslashreplace')
    try:
        check_environment('core')
        code = command()
    except (UserError, IncompatibleEnvironment) as error:
        print(f'error: {message_of(error)}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        explained = missing_module(error)
        if explained is None:
            raise
        print(f'error: {explained}', file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno in PATH_ERRORS and error.filename is not None:
            name = textwrap.shorten(str(error.filename), 200, placeholder='...')
            print(f'error: {name}: {error.strerror}', file=sys.stderr)
            return 2
        if error.errno not in DISK_ERRORS:
            raise
        place = f' ({error.filename})' if error.filename else ''
        print(f'error: the disk fails: {error.strerror}{place}', file=sys.stderr)
        return 2
    except RuntimeError as error:
        # torch has no other names for these
        reason = str(error).strip().partition('\n')[0]
        if re.search(r'DataLoader worker \(pid', reason):
            print(
                f'error: a process that loads data was killed ({reason}). Usual cause: not enough '
                'memory; lower num_workers or batch_size of the dataloader',
                file=sys.stderr,
            )
            return 2
        if is_lost_partner(error):
            print(f'error: another process of this run was lost: {reason}', file=sys.stderr)
            return ANOTHER_ENDED
        raise
    except KeyboardInterrupt:
        # the terminal has shown ^C in an unfinished line
        print(f'\nstopped{after_interrupt and ": "}{after_interrupt}', file=sys.stderr)
        return INTERRUPTED
    return code if type(code) is int else 0


def exit_command(command: Callable[[], object], after_interrupt: str = '') -> NoReturn:
    """Runs a command as :func:`run_command` does, and ends the process.

    A process of several ends at once when its work is done: what torch's threads do while Python
    goes down must not become the result of a training that went well.

    Args:
        command: Takes no arguments, and may return an exit code.
        after_interrupt: What to tell who stopped it with Ctrl-C. Default: nothing.
    """
    try:
        code = run_command(command, after_interrupt)
    except SystemExit as stop:
        if not isinstance(stop.code, int):
            raise
        code = stop.code
    if 'RANK' in os.environ:
        end_now(code)
    sys.exit(code)
