"""The attention units that a ResNet can have: what they are called, and where they stand.

A new unit on the branch of a block is a layer and one row in :data:`BLOCK_UNITS`.
"""

from collections.abc import Mapping

from torch import nn

from attnpool_backbones.layers.cbam import CBAM
from attnpool_backbones.layers.global_context import GC
from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.layers.squeeze_excite import SE

BLOCK_UNITS: Mapping[str, type[nn.Module]] = {'sge': SGE, 'se': SE, 'cbam': CBAM, 'gc': GC}
"""Units on the branch of a block, after its last norm; the name is the attribute's too."""
ENDING_UNITS = ('sge', 'se', 'cbam', 'gc')
"""Those of them that compute the end of the block along, its shortcut and ReLU."""
ATTENTIONS = (*BLOCK_UNITS, 'sk', 'bam')
"""All units: those of a block, in place of its 3x3 convolution, and after a stage."""
POOLING_UNITS = ('se', 'gc')
"""Those whose pooling can be :class:`AttentionPool2d`: they take ``pool_heads``."""
DEFAULT_GROUPS = {'sge': 64, 'sk': 32}
"""Groups of the units that have any, as published."""
