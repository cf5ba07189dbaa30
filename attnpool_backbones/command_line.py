"""How command lines end: with one message for what the user can put right, without a traceback."""

import sys
from collections.abc import Callable

from attnpool_backbones.compatibility import IncompatibleEnvironment, check_environment

__all__ = ['UserError', 'run_command']


class UserError(Exception):
    """Something the user can put right; the message says what and how."""


def run_command(command: Callable[[], object]) -> int:
    """Runs a command in an environment that can run it.

    Args:
        command (Callable): Takes no arguments. It should import what it needs itself, so that a
            missing package ends with a message too.

    Returns:
        int: Exit code: 0, or 2 after a message on stderr.
    """
    try:
        check_environment('core')
        command()
    except (UserError, IncompatibleEnvironment) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0
