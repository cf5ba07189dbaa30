"""What the commands of this package answer when a run cannot start."""

from attnpool_backbones.command_line import UserError

__all__ = ['PreflightError']


class PreflightError(UserError):
    """Something a run needs is missing or does not fit."""
