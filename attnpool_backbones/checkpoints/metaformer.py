"""Published checkpoints of the MetaFormer papers: PoolFormer and its relatives."""

import re
from collections.abc import Mapping

from torch import Tensor

from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from attnpool_backbones.checkpoints.renaming import rename_by_all

_OF_BLOCKS = (
    (r'\.token_mixer\.(random_matrix|fc\.weight)$', r'.mixer.weight'),
    (r'\.token_mixer\.', r'.mixer.'),
    (r'\.(layer_scale|res_scale)_?([12])(\.scale)?$', r'.\1\2'),
)
_POINTWISE = re.compile(r'.*\.(mlp\.fc[12]|mixer\.(pwconv[12]|qkv|proj))\.weight$')


def _as_linear(name: str, value: Tensor) -> Tensor:
    return value.flatten(1) if value.dim() == 4 and _POINTWISE.match(name) else value


def _convert_first(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """First paper: stages, convolutions between and position embeddings share one numbering."""
    found = (re.match(r'network\.(\d+)\.\d+\.', name) for name in state_dict)
    # Index in `network` of each stage.
    stages = sorted({int(match[1]) for match in found if match})
    converted = {}
    for name, value in state_dict.items():
        if match := re.match(r'network\.(\d+)\.(\d+)\.(.*)', name):
            stage = stages.index(int(match[1]))
            name = rename_by_all(f'stages.{stage}.blocks.{match[2]}.{match[3]}', _OF_BLOCKS)
        elif match := re.match(r'network\.(\d+)\.(.*)', name):
            stage = sum(index < int(match[1]) for index in stages)
            place = f'stages.{stage}.downsample' if stage else 'stem'
            name = f'{place}.{match[2]}'
        elif match := re.match(r'norm(\d+)\.(.*)', name):
            if int(match[1]) in stages:
                name = f'out_norms.{stages.index(int(match[1]))}.{match[2]}'
        else:
            name = re.sub(r'^patch_embed\.', 'stem.', name)
        converted[name] = _as_linear(name, value)
    return converted


def _convert_second(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    rules = (
        (r'^downsample_layers\.0\.', r'stem.'),
        (r'^downsample_layers\.(\d+)\.', r'stages.\1.downsample.'),
        (r'^(stem|stages\.\d+\.downsample)\.conv\.', r'\1.proj.'),
        (r'^(stem|stages\.\d+\.downsample)\.(pre|post)_norm\.', r'\1.norm.'),
        (r'^stages\.(\d+)\.(\d+)\.', r'stages.\1.blocks.\2.'),
        *_OF_BLOCKS,
    )
    return {rename_by_all(name, rules): value for name, value in state_dict.items()}


def _convert_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    rules = ((r'^(stem|stages\.\d+\.downsample)\.conv\.', r'\1.proj.'), *_OF_BLOCKS)
    renamed = {rename_by_all(name, rules): value for name, value in state_dict.items()}
    return {name: _as_linear(name, value) for name, value in renamed.items()}


# Output norms belong to the file's outputs, which need not be the model's.
_LEFTOVERS = (r'norm\.', r'norm\d+\.', r'head\.', r'out_norms\.')

FIRST_PAPER = CheckpointFormat(
    name='PoolFormer of sail-sg/poolformer, mmpretrain or mmsegmentation',
    backbone='MetaFormer',
    signature=(r'patch_embed\.proj\.weight$', r'network\.0\.0\.mlp\.fc1\.weight$'),
    convert=_convert_first,
    leftovers=_LEFTOVERS,
)
SECOND_PAPER = CheckpointFormat(
    name='MetaFormer baselines of sail-sg/metaformer',
    backbone='MetaFormer',
    signature=(r'downsample_layers\.0\.conv\.weight$', r'stages\.0\.0\.mlp\.fc1\.weight$'),
    convert=_convert_second,
    leftovers=_LEFTOVERS,
)
TIMM = CheckpointFormat(
    name='MetaFormer of timm',
    backbone='MetaFormer',
    signature=(
        r'stem\.conv\.weight$',
        r'stages\.\d+\.blocks\.\d+\.(layer|res)_scale1\.scale$',
    ),
    convert=_convert_timm,
    leftovers=_LEFTOVERS,
)
OWN = CheckpointFormat(
    name='MetaFormer of this package',
    backbone='MetaFormer',
    signature=(r'stem\.proj\.weight$', r'stages\.0\.blocks\.0\.'),
    convert=dict,
    leftovers=_LEFTOVERS,
)
FORMATS = (FIRST_PAPER, SECOND_PAPER, TIMM, OWN)
