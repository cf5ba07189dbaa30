"""Published checkpoints of CoAtNet: timm's; there is no official release."""

import re
from collections.abc import Mapping

from torch import Tensor

from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from attnpool_backbones.checkpoints.renaming import rename_by_first

_BLOCK = r'^(stages\.\d+\.blocks\.\d+\.)'

_RENAMED = (
    (r'^stem\.norm1\.', r'stem.norm.'),
    (_BLOCK + r'shortcut\.expand\.', r'\1shortcut.'),
    (_BLOCK + r'norm1\.norm\.', r'\1norm1.'),
    (_BLOCK + r'attn\.rel_pos\.(mlp\.)?', r'\1attn.bias.'),
    (_BLOCK + r'ls([12]?)\.gamma$', r'\1gamma\2'),
    (_BLOCK + r'conv_dw\.', r'\1dwconv.'),
)
_RENAMED_MBCONV = (
    (_BLOCK + r'pre_norm\.', r'\1norm.'),
    (_BLOCK + r'conv1_1x1\.', r'\1expand.'),
    (_BLOCK + r'norm1\.', r'\1expand_norm.'),
    (_BLOCK + r'conv2_kxk\.', r'\1dwconv.'),
    (_BLOCK + r'norm2\.', r'\1dwconv_norm.'),
    (_BLOCK + r'se(?:_early)?\.fc1\.', r'\1se.reduce.'),
    (_BLOCK + r'se(?:_early)?\.fc2\.', r'\1se.expand.'),
    (_BLOCK + r'conv3_1x1\.', r'\1project.'),
)


def _rename(name: str, mbconvs: set[str], last_stage: int) -> str:
    block = re.match(_BLOCK, name)
    is_mbconv = block is not None and block[1] in mbconvs
    final_norm = (r'^norm\.', f'out_norms.{last_stage}.')
    return rename_by_first(name, (final_norm, *(_RENAMED_MBCONV if is_mbconv else ()), *_RENAMED))


def _convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Both kinds of blocks have a norm1 and a norm2.
    found = (re.match(_BLOCK + r'conv1_1x1\.weight$', name) for name in state_dict)
    mbconvs = {match[1] for match in found if match}
    stages = (re.match(r'stages\.(\d+)\.', name) for name in state_dict)
    last_stage = max(int(match[1]) for match in stages if match)
    return {_rename(name, mbconvs, last_stage): value for name, value in state_dict.items()}


_LEFTOVERS = (r'head\.', r'out_norms\.', r'.*\.relative_(position_index|coords_log)$')

TIMM = CheckpointFormat(
    name='CoAtNet of timm',
    backbone='CoAtNet',
    signature=(
        r'stem\.conv1\.weight$',
        r'stages\.0\.blocks\.0\.(conv1_1x1|conv_dw)\.weight$',
    ),
    convert=_convert,
    leftovers=_LEFTOVERS,
)
OWN = CheckpointFormat(
    name='CoAtNet of this package',
    backbone='CoAtNet',
    signature=(
        r'stem\.conv2?\.weight$',
        r'stages\.0\.blocks\.0\.(dwconv|attn\.qkv)\.weight$',
    ),
    convert=dict,
    leftovers=_LEFTOVERS,
)
FORMATS = (TIMM, OWN)
