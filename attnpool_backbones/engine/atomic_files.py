"""Where :mod:`attnpool_backbones.atomic_files` was."""

from attnpool_backbones.atomic_files import write_atomically

__all__ = ['write_atomically']
