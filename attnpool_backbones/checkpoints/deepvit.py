"""Published checkpoints of DeepViT."""

import re
from collections.abc import Mapping

from torch import Tensor

from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from attnpool_backbones.checkpoints.renaming import rename_by_first

_RENAMED = (
    (r'^(cls_token|pos_embed)$', r'stem.\1'),
    (r'^patch_embed\.', r'stem.'),
    (r'^(blocks\.\d+\.attn\.)reatten_matrix\.', r'\1mixing.theta.'),
    (r'^(blocks\.\d+\.attn\.)var_norm\.', r'\1mixing.norm.'),
)


def _convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    blocks = (re.match(r'blocks\.(\d+)\.', name) for name in state_dict)
    last_block = max(int(match[1]) for match in blocks if match)
    rules = ((r'^norm\.', f'out_norms.{last_block}.'), *_RENAMED)
    converted = {rename_by_first(name, rules): value for name, value in state_dict.items()}
    return {
        # theta is published as a 1x1 convolution.
        name: value.flatten(1) if name.endswith('.mixing.theta.weight') else value
        for name, value in converted.items()
    }


_LEFTOVERS = (r'head\.', r'out_norms\.')

OFFICIAL = CheckpointFormat(
    name='DeepViT of zhoudaquan/dvit_repo',
    backbone='DeepViT',
    # A plain ViT of theirs has no names of its own.
    signature=(
        r'cls_token$',
        r'pos_embed$',
        r'patch_embed\.proj\.weight$',
        r'blocks\.0\.attn\.qkv\.weight$',
        r'blocks\.0\.mlp\.fc1\.weight$',
    ),
    convert=_convert,
    leftovers=_LEFTOVERS,
)
OWN = CheckpointFormat(
    name='DeepViT of this package',
    backbone='DeepViT',
    signature=(r'stem\.cls_token$', r'stem\.pos_embed$', r'blocks\.0\.attn\.qkv\.weight$'),
    convert=dict,
    leftovers=_LEFTOVERS,
)
FORMATS = (OFFICIAL, OWN)
