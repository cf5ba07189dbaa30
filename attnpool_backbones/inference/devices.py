"""Devices that are named on a command line."""

import torch

from attnpool_backbones.command_line import UserError, line_of

__all__ = ['require_device']


def require_device(device: str) -> None:
    """Checks that a model can compute on a device of this machine.

    Args:
        device: As torch names it.

    Raises:
        UserError: If it is none, or is not there.
    """
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {device}: {line_of(error)}') from error
