"""The command ``attnpool figure``; see :mod:`attnpool_backbones.analysis.command`."""

from attnpool_backbones.analysis.command import __doc__ as __doc__
from attnpool_backbones.analysis.command import add_arguments, run

__all__ = ['add_arguments', 'run']
