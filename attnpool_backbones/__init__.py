"""OpenMMLab backbones that rethink how tokens are pooled and attended.

A config names them by scope, for example `type='attnpool_backbones.PatchConvNet'`, in any mmdet or
mmseg config, and nothing needs to be imported by hand. Importing this package imports neither
torch nor any OpenMMLab package. It lets mmcv find operators in plain torch where no compiled ones
are installed, see :mod:`attnpool_backbones.mmcv_operators`, lets mmengine read checkpoints as mere
data, see :mod:`attnpool_backbones.checkpoints.door`, and on Python 3.14 lets mmengine train, see
:mod:`attnpool_backbones.python_3_14`.
"""

from attnpool_backbones.door_opener import open_door_with_mmengine
from attnpool_backbones.mmcv_operators.finder import add_finder
from attnpool_backbones.python_3_14 import give_back_find_loader
from attnpool_backbones.version import __version__

__all__ = ['__version__']

add_finder()
give_back_find_loader()
open_door_with_mmengine()
