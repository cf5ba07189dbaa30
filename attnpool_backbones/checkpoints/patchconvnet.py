"""Published checkpoints of PatchConvNet."""

from collections.abc import Mapping

from torch import Tensor

from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from attnpool_backbones.checkpoints.renaming import rename_by_first

_RENAMED = (
    (r'^patch_embed\.proj\.(\d+)\.0\.', r'stem.\1.'),
    (r'^blocks\.(\d+)\.norm1\.', r'blocks.\1.norm.'),
    (r'^blocks\.(\d+)\.gamma_1$', r'blocks.\1.gamma'),
    (r'^blocks\.(\d+)\.attn\.qkv_pos\.0\.', r'blocks.\1.conv1.'),
    (r'^blocks\.(\d+)\.attn\.qkv_pos\.2\.', r'blocks.\1.dwconv.'),
    (r'^blocks\.(\d+)\.attn\.qkv_pos\.4\.conv_(reduce|expand)\.', r'blocks.\1.se.\2.'),
    (r'^blocks\.(\d+)\.attn\.qkv_pos\.5\.', r'blocks.\1.conv2.'),
    (r'^cls_token$', r'pool.cls_token'),
    (r'^blocks_token_only\.0\.mlp\.fc1\.', r'pool.mlp.0.'),
    (r'^blocks_token_only\.0\.mlp\.fc2\.', r'pool.mlp.2.'),
    (r'^blocks_token_only\.0\.attn\.', r'pool.'),
    (r'^blocks_token_only\.0\.', r'pool.'),
    (r'^norm\.', r'pool_norm.'),
)


def _convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {rename_by_first(name, _RENAMED): value for name, value in state_dict.items()}


_LEFTOVERS = (r'pool\.', r'pool_norm\.', r'head\.')

OFFICIAL = CheckpointFormat(
    name='PatchConvNet of facebookresearch/deit',
    backbone='PatchConvNet',
    signature=(r'patch_embed\.proj\.0\.0\.weight$', r'blocks\.\d+\.attn\.qkv_pos\.5\.weight$'),
    convert=_convert,
    leftovers=_LEFTOVERS,
)
OWN = CheckpointFormat(
    name='PatchConvNet of this package',
    backbone='PatchConvNet',
    signature=(r'stem\.(0|conv)\.weight$', r'blocks\.\d+\.se\.reduce\.weight$'),
    convert=dict,
    leftovers=_LEFTOVERS,
)
OWN_ATTENTION = CheckpointFormat(
    name='PatchConvNet of this package with an attention trunk',
    backbone='PatchConvNet',
    signature=(
        r'stem\.0\.(0|conv)\.weight$',
        r'stem\.1\.pos_embed$',
        r'blocks\.\d+\.attn\.qkv\.weight$',
    ),
    convert=dict,
    leftovers=_LEFTOVERS,
)
FORMATS = (OFFICIAL, OWN, OWN_ATTENTION)
