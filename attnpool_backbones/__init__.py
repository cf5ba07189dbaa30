"""OpenMMLab backbones that rethink how tokens are pooled and attended.

A config names them by scope, for example `type='attnpool_backbones.PatchConvNet'`, in any mmdet or
mmseg config, and nothing needs to be imported by hand. Importing this package imports neither
torch nor any OpenMMLab package.
"""

from attnpool_backbones.version import __version__

__all__ = ['__version__']
