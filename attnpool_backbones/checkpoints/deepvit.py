"""Published checkpoints of DeepViT."""

import re
from collections.abc import Mapping

from torch import Tensor

from attnpool_backbones.checkpoints.format import CheckpointFormat

# Applied in this order to the start of a name; the first that matches is the only one.
_RENAMED = (
    (r'(cls_token|pos_embed)$', r'stem.\1'),
    (r'patch_embed\.', r'stem.'),
    (r'(blocks\.\d+\.attn\.)reatten_matrix\.', r'\1mixing.theta.'),
    (r'(blocks\.\d+\.attn\.)var_norm\.', r'\1mixing.norm.'),
)


def _rename(name: str, last_block: int) -> str:
    name = re.sub(r'^norm\.', f'out_norms.{last_block}.', name)
    for pattern, replacement in _RENAMED:
        renamed, count = re.subn(f'^{pattern}', replacement, name)
        if count:
            return renamed
    return name


def _convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    blocks = (re.match(r'blocks\.(\d+)\.', name) for name in state_dict)
    last_block = max(int(match[1]) for match in blocks if match)
    converted = {_rename(name, last_block): value for name, value in state_dict.items()}
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
