"""What can be wrong with a checkpoint; each ends a command with one message."""

from attnpool_backbones.command_line import UserError

__all__ = [
    'CheckpointError',
    'CheckpointMismatch',
    'DamagedCheckpoint',
    'MissingCheckpoint',
    'NoCheckpoint',
    'UnreachableCheckpoint',
    'UnsafeCheckpoint',
]


class CheckpointError(UserError, ValueError):
    """A checkpoint is damaged, of another kind, or not for the model it is given to."""


class DamagedCheckpoint(CheckpointError):
    """The bytes of a checkpoint are not those that were written, or not all of them."""


class NoCheckpoint(CheckpointError):
    """A file is something else than a checkpoint."""


class UnsafeCheckpoint(CheckpointError):
    """A checkpoint asks for code to be run, or would exhaust the machine."""


class CheckpointMismatch(CheckpointError):
    """A checkpoint has too few of a model's parameters, or another meaning of them."""


class MissingCheckpoint(UserError, FileNotFoundError):
    """There is no such file."""


class UnreachableCheckpoint(UserError, OSError):
    """A checkpoint cannot be downloaded whole."""
