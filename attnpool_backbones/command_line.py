"""How command lines end: with one message for what the user can put right, without a traceback."""

import sys
from collections.abc import Callable

from attnpool_backbones.compatibility import IncompatibleEnvironment, check_environment

__all__ = ['UserError', 'run_command']


class UserError(Exception):
    """Something the user can put right; the message says what and how."""


INTERRUPTED = 130  # what shells give a command that Ctrl-C ended


def message_of(error: Exception) -> str:
    """Returns what an error says, without the traceback that torch puts around an error of a
    process that loads data."""
    text = str(error)
    if 'Original Traceback' not in text:
        return text
    last = text.rstrip().rpartition('\n')[2]
    return last.partition(': ')[2] or last


def run_command(command: Callable[[], object], after_interrupt: str = '') -> int:
    """Runs a command in an environment that can run it.

    Args:
        command (Callable): Takes no arguments. It should import what it needs itself, so that a
            missing package ends with a message too.
        after_interrupt (str): What to tell who stopped it with Ctrl-C. Defaults to nothing.

    Returns:
        int: Exit code: 0, or after a message on stderr 2, or 130 if it was stopped with Ctrl-C.
    """
    try:
        check_environment('core')
        command()
    except (UserError, IncompatibleEnvironment) as error:
        print(f'error: {message_of(error)}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # the terminal has shown ^C in an unfinished line
        print(f'\nstopped{after_interrupt and ": "}{after_interrupt}', file=sys.stderr)
        return INTERRUPTED
    return 0
