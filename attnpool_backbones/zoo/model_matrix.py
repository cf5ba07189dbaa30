"""Which backbone has a config under which head, and what its recipe says.

The rates are stated here a second time, independently of the configs: ``tests/configs`` builds
every config and compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

#: Kinds of parameters that no part of a name tells; vectors have at most one dimension.
KINDS = ('norm layers', 'biases', 'vectors')


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An optimizer and a schedule, as ``configs/_base_/schedules`` has them."""

    optimizer: str
    lr: float
    weight_decay: float
    momentum: float | tuple[float, float] = (0.9, 0.999)
    """Of SGD, or the betas of AdamW."""
    no_decay: tuple[str, ...] = ()
    """Parameters without weight decay: parts of their names, or one of :data:`KINDS`."""
    warm_up: tuple[int, float] | None = (500, 0.001)
    """Iterations, and the part of the learning rate that the first one has."""
    epochs: int | None = None
    iterations: int | None = None
    """Either epochs or iterations."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the learning rate falls to a tenth."""
    power: float | None = None
    """Of the polynomial by which the learning rate falls; without it and milestones: a cosine."""
    eta_min: float = 0.0
    """Learning rate at the end of the polynomial or cosine."""
    batch: int = 16
    """Images of all GPUs; eight GPUs, or one for the digit scenes."""
    clip: float | None = None
    """Greatest norm of the gradients."""
    amp: bool = False
    """Mixed precision with dynamic loss scaling."""
    decay_rate: float | None = None
    """Learning rate of a backbone layer over that of the next one; None: the same for all."""
    label: str
    """Part of the config's name."""
    data: str = 'coco'
    """Last part of the config's name."""


_POOLFORMER_1X = Recipe(
    optimizer='AdamW', lr=2e-4, weight_decay=1e-4, epochs=12, milestones=(8, 11), label='1x'
)
_POOLFORMER_40K = Recipe(
    optimizer='AdamW', lr=2e-4, weight_decay=1e-4, iterations=40000, batch=32, label='40k',
    warm_up=None, power=0.9, data='ade20k-512x512',
)  # fmt: skip
_XCIT_3X = Recipe(
    optimizer='AdamW', lr=1e-4, weight_decay=0.05, epochs=36, milestones=(27, 33), amp=True,
    no_decay=('norm',), label='ms-3x',
)  # fmt: skip
_XCIT_160K = Recipe(
    optimizer='AdamW', lr=6e-5, weight_decay=0.01, iterations=160000, label='160k',
    no_decay=('norm',), warm_up=(1500, 1e-6), power=1.0, data='ade20k-512x512',
)  # fmt: skip
_METAFORMER_160K = replace(_XCIT_160K, lr=1e-4, weight_decay=0.05)
_SGE_2X = Recipe(
    optimizer='SGD', lr=0.02, weight_decay=1e-4, epochs=24, milestones=(16, 22), clip=35,
    momentum=0.9, warm_up=(500, 1 / 3), label='2x',
)  # fmt: skip
_DIGITS = Recipe(
    optimizer='AdamW', lr=2e-3, weight_decay=0.05, batch=8, clip=5.0, label='', data='digit-scenes',
    no_decay=('norm layers', 'biases'), warm_up=(50, 0.01),
)  # fmt: skip
# Whatever has no direction that decay could shrink, by whichever name.
_LAYER_DECAY = dict(
    decay_rate=0.85,
    no_decay=(
        'norm layers', 'vectors', 'cls_token', 'pos_embed', 'relative_position_bias_table',
        'layer_scale', 'sge',
    ),
)  # fmt: skip
_SGD = dict(optimizer='SGD', momentum=0.9, weight_decay=5e-4)

#: By the name of the file in ``configs/_base_/schedules``.
RECIPES: Mapping[str, Recipe] = {
    'poolformer_1x': _POOLFORMER_1X,
    'poolformer_40k': _POOLFORMER_40K,
    'xcit_3x': _XCIT_3X,
    'xcit_3x_fsdp': replace(_XCIT_3X, label='ms-3x-fsdp'),
    'xcit_160k': _XCIT_160K,
    'metaformer_160k': _METAFORMER_160K,
    'sge_2x': _SGE_2X,
    'sge_20e': replace(_SGE_2X, epochs=20, milestones=(16, 19), label='20e'),
    'resnet_40k': replace(_POOLFORMER_40K, lr=0.02, **_SGD),
    'resnet_160k': replace(
        _XCIT_160K, lr=0.01, no_decay=(), warm_up=None, power=0.9, eta_min=1e-4, **_SGD
    ),
    'layer-decay_1x': replace(_POOLFORMER_1X, lr=1e-4, weight_decay=0.05, **_LAYER_DECAY),
    'layer-decay_3x': replace(_XCIT_3X, **_LAYER_DECAY),
    'layer-decay_160k': replace(_METAFORMER_160K, **_LAYER_DECAY),
    'layer-decay_40k': replace(_POOLFORMER_40K, weight_decay=0.05, **_LAYER_DECAY),
    'digit-scenes_instance': _DIGITS,
    'digit-scenes_semantic': _DIGITS,
}


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One config: a backbone under a head with a recipe."""

    family: str
    """Folder in ``configs/``."""
    backbone: str
    """As in the config's name, e.g. ``'poolformer-s12'``; ``-in1k-pre``: with weights of
    ImageNet-1k where the config without it has those of a larger data set."""
    head: str
    """``'retinanet'``, ``'faster-rcnn'``, ``'mask-rcnn'``, ``'cascade-rcnn'``,
    ``'cascade-mask-rcnn'``, ``'upernet'`` or ``'semantic-fpn'``."""
    recipe: Recipe
    """With the changes that this config makes to it."""
    drop_path: float = 0.0
    """Rate of the last block."""
    drop_path_schedule: str = 'linear'
    """``'linear'`` from 0 in the first block, or ``'constant'``."""
    checkpoint: str | None = None
    """File that the backbone starts from."""
    frozen_stages: int = -1
    norm_eval: bool = False
    with_cp: bool = False
    """Activation checkpointing."""
    params: str | None = None
    """Parameters of the whole model in millions, as printed by ``source``."""
    source: str | None = None
    params_frozen: bool = True
    """Whether ``params`` has frozen parameters in it."""

    @property
    def segments(self) -> bool:
        """Whether this is semantic segmentation, done by mmseg; otherwise mmdet."""
        return self.head in ('upernet', 'semantic-fpn')

    @property
    def config(self) -> str:
        """Path of the config, relative to the folder of all configs."""
        recipe = self.recipe
        if recipe.data == 'digit-scenes':
            middle = 'slim' if self.segments else 'slim-fpn'
        elif self.segments:
            middle = f'8xb{recipe.batch // 8}-{recipe.label}'
        else:
            middle = f'fpn_{recipe.label}'
        return f'{self.family}/{self.head}_{self.backbone}_{middle}_{recipe.data}.py'


#: Where a head takes another, its combination says so.
CHECKPOINTS: Mapping[str, str] = {
    **{f'patchconvnet-{size}': f'{size}_224_1k.pth' for size in ('s60', 's120', 'b60')},
    'coatnet-0-rw': 'coatnet_0_rw_224_sw-a6439706.pth',
    'coatnet-rmlp-2-rw': 'coatnet_rmlp_2_rw_224_sw-5ccfac55.pth',
    **{
        f'poolformer-{size}': f'poolformer_{size}.pth.tar'
        for size in ('s12', 's24', 's36', 'm36', 'm48')
    },
    **{
        f'{mixer}former-{size}': f'{mixer}former_{size}.pth'
        for mixer in ('conv', 'ca')
        for size in ('s18', 's36', 'm36')
    },
    'deepvit-s': 'DViT_82_16b.pth.tar',
    'deepvit-l': 'DViT_83_32b.pth.tar',
    **{
        f'{unit}-resnet{depth}': f'{unit}_resnet{depth}.pth.tar'
        for unit in ('sge', 'se', 'sk', 'cbam', 'bam', 'gc')
        for depth in (50, 101)
    },
    'resnet18': 'resnet18-f37072fd.pth',
    'resnet50': 'resnet50-0676ba61.pth',
    'resnet101': 'resnet101-63fe2227.pth',
    'swin-tiny': 'swin_tiny_patch4_window7_224.pth',
}

_RECIPE_FIELDS = ('lr', 'batch', 'amp', 'decay_rate', 'no_decay')


def _combine(
    family: str, head: str, recipe: str, backbones: Mapping[str, Mapping[str, Any]], **common: Any
) -> list[Combination]:
    """Returns one combination for each backbone; a backbone's options go before common ones."""
    combinations = []
    for backbone, own in backbones.items():
        options = {'checkpoint': CHECKPOINTS.get(backbone), **common, **own}
        changes = {key: options.pop(key) for key in _RECIPE_FIELDS if key in options}
        combinations.append(
            Combination(
                family=family,
                backbone=backbone,
                head=head,
                recipe=replace(RECIPES[recipe], **changes),
                **options,
            )
        )
    return combinations


def _digits(family: str, *backbones: str) -> list[Combination]:
    names = {name: {} for name in backbones}
    return [
        *_combine(family, 'mask-rcnn', 'digit-scenes_instance', names),
        *_combine(family, 'upernet', 'digit-scenes_semantic', names),
    ]


def _counted(source: str, **millions: str) -> dict[str, dict[str, str]]:
    return {
        name.replace('_', '-'): dict(params=params, source=source)
        for name, params in millions.items()
    }


_TABLE_3 = 'arXiv 2111.11418, table 3'
_TABLE_4 = 'arXiv 2111.11418, table 4'
_MAMBAOUT = 'arXiv 2405.07992, table 3'
_RECOMPUTED = 'recomputed from the official code, without the classifier'

_POOLFORMER = [
    *_combine(
        'poolformer', 'retinanet', 'poolformer_1x',
        _counted(_TABLE_3, poolformer_s12='21.7', poolformer_s24='31.1', poolformer_s36='40.6'),
        lr=1e-4,
    ),
    *_combine(
        'poolformer', 'mask-rcnn', 'poolformer_1x',
        _counted(_TABLE_3, poolformer_s12='31.6', poolformer_s24='41.0', poolformer_s36='50.5'),
    ),
    *_combine(
        'poolformer', 'cascade-mask-rcnn', 'poolformer_1x',
        {'poolformer-s12': {}, 'poolformer-s36': {}},
    ),
    *_combine(
        'poolformer', 'upernet', 'xcit_160k', {'poolformer-s12': {}, 'poolformer-s36': {}}
    ),
    *_combine(
        'poolformer', 'semantic-fpn', 'poolformer_40k',
        {
            **_counted(_TABLE_4, poolformer_s12='15.7', poolformer_s36='34.6',
                       poolformer_m36='59.8', poolformer_m48='77.1'),
            # The table prints 23.2, which does not fit the other rows.
            **_counted(_RECOMPUTED, poolformer_s24='25.14'),
        },
    ),
    *_digits('poolformer', 'poolformer-nano'),
]  # fmt: skip

_SMALL_AND_BASE = {
    'convformer-s18': dict(drop_path=0.2),
    'convformer-m36': dict(drop_path=0.4, with_cp=True),
    'caformer-s18': dict(drop_path=0.15),
    'caformer-m36': dict(drop_path=0.4, with_cp=True),
}
_ALL_SIZES = {
    **_SMALL_AND_BASE,
    'convformer-s36': dict(drop_path=0.3),
    'caformer-s36': dict(drop_path=0.3),
}
_UPERNET_PARAMS = _counted(
    _MAMBAOUT, convformer_s18='54', convformer_s36='67', convformer_m36='85', caformer_s18='54',
    caformer_s36='67', caformer_m36='84',
)  # fmt: skip
_METAFORMER = [
    *_combine('metaformer', 'retinanet', 'poolformer_1x', _SMALL_AND_BASE, lr=1e-4),
    *_combine('metaformer', 'mask-rcnn', 'xcit_3x', _SMALL_AND_BASE),
    *_combine('metaformer', 'cascade-mask-rcnn', 'xcit_3x', _ALL_SIZES),
    *_combine(
        'metaformer', 'upernet', 'metaformer_160k',
        {name: {**own, **_UPERNET_PARAMS[name]} for name, own in _ALL_SIZES.items()},
    ),
    *_combine('metaformer', 'semantic-fpn', 'poolformer_40k', _SMALL_AND_BASE),
    *_digits('metaformer', 'caformer-nano'),
]  # fmt: skip

_UNITS = ('sge', 'se', 'sk', 'cbam', 'bam', 'gc')
_R50 = {f'{unit}-resnet50': {} for unit in _UNITS}
_R101 = {f'{unit}-resnet101': dict(lr=0.01, batch=8) for unit in _UNITS}
# The published rows of RetinaNet mix two batch sizes at one learning rate.
_HALF_BATCH = {f'{unit}-resnet50': dict(batch=8) for unit in ('sk', 'cbam', 'bam')}
_FROZEN = dict(frozen_stages=1, norm_eval=True)
_SGE = {'sge-resnet50': {}, 'sge-resnet101': {}}
_ATTN_RESNET = [
    *_combine('attn_resnet', 'faster-rcnn', 'sge_2x', {**_R50, **_R101}, **_FROZEN),
    *_combine('attn_resnet', 'mask-rcnn', 'sge_2x', {**_R50, **_R101}, **_FROZEN),
    *_combine('attn_resnet', 'cascade-rcnn', 'sge_20e', {**_R50, **_R101}, **_FROZEN),
    *_combine(
        'attn_resnet', 'retinanet', 'sge_2x', {**_R50, **_HALF_BATCH, **_R101}, lr=0.01, **_FROZEN
    ),
    *_combine(
        'attn_resnet', 'cascade-mask-rcnn', 'sge_20e',
        {'sge-resnet50': {}, 'sge-resnet101': dict(lr=0.01, batch=8)}, **_FROZEN,
    ),
    *_combine('attn_resnet', 'upernet', 'resnet_160k', _SGE),
    *_combine('attn_resnet', 'semantic-fpn', 'resnet_40k', _SGE),
    *_digits('attn_resnet', 'sge-resnet-nano'),
]  # fmt: skip

_LAYER_DECAY_RECIPES = {
    'retinanet': 'layer-decay_1x',
    'mask-rcnn': 'layer-decay_3x',
    'cascade-mask-rcnn': 'layer-decay_3x',
    'upernet': 'layer-decay_160k',
    'semantic-fpn': 'layer-decay_40k',
}
_COATNET = [
    combination
    for head, recipe in _LAYER_DECAY_RECIPES.items()
    for combination in _combine(
        'coatnet', head, recipe,
        {
            'coatnet-0-rw': dict(drop_path=0.2),
            'coatnet-rmlp-2-rw': dict(drop_path=0.4, decay_rate=0.9, amp=True, with_cp=True),
        },
    )
] + _digits('coatnet', 'coatnet-nano')  # fmt: skip
_DEEPVIT = [
    combination
    for head, recipe in _LAYER_DECAY_RECIPES.items()
    for combination in _combine(
        'deepvit', head, recipe,
        {
            'deepvit-s': dict(with_cp=head not in ('upernet', 'semantic-fpn')),
            'deepvit-l': dict(amp=True, with_cp=True, decay_rate=0.9),
        },
        drop_path=0.2,
    )
] + _digits('deepvit', 'deepvit-nano')  # fmt: skip

_CONSTANT = dict(drop_path_schedule='constant')
_COLUMNS = {'patchconvnet-s60': dict(drop_path=0.05), 'patchconvnet-b60': dict(drop_path=0.15)}
_UPERNET_COLUMNS = (
    ('s60', dict(drop_path=0.05, params='55.25'), '512_21k.pth'),
    ('b60', dict(drop_path=0.15, params='133.93'), '384_21k.pth'),
    ('b120', dict(drop_path=0.15, params='223.15'), '384_21k.pth'),
)
_PATCHCONVNET = [
    *_combine('patchconvnet', 'retinanet', 'poolformer_1x', _COLUMNS, lr=1e-4, **_CONSTANT),
    *_combine(
        'patchconvnet', 'mask-rcnn', 'xcit_3x',
        {
            'patchconvnet-s60': dict(drop_path=0.05, params='45.43', source=_RECOMPUTED),
            'patchconvnet-s120': dict(drop_path=0.1, params='67.93', source=_RECOMPUTED),
            'patchconvnet-b60': dict(drop_path=0.15),
        },
        **_CONSTANT,
    ),
    *_combine(
        'patchconvnet', 'mask-rcnn', 'xcit_3x_fsdp',
        {'patchconvnet-l120': dict(drop_path=0.15, with_cp=True)}, **_CONSTANT,
    ),
    *_combine('patchconvnet', 'cascade-mask-rcnn', 'xcit_3x', _COLUMNS, **_CONSTANT),
    *_combine(
        'patchconvnet', 'upernet', 'xcit_160k',
        {
            **{
                f'patchconvnet-{size}{pretraining}': dict(own, checkpoint=f'{size}_{file}')
                for size, own, large in _UPERNET_COLUMNS
                for pretraining, file in (('', large), ('-in1k-pre', '224_1k.pth'))
            },
            'patchconvnet-l120': dict(drop_path=0.15, params='372.18', amp=True, with_cp=True),
        },
        source=_RECOMPUTED, **_CONSTANT,
    ),
    *_combine('patchconvnet', 'semantic-fpn', 'poolformer_40k', _COLUMNS, **_CONSTANT),
    *_digits('patchconvnet', 'patchconvnet-nano'),
]  # fmt: skip

_RESNETS = {'resnet50': {}, 'resnet101': {}}
_SWIN = {'swin-tiny': dict(drop_path=0.2)}
_SWIN_MMSEG = dict(checkpoint='swin_tiny_patch4_window7_224_20220317-1cdeb081.pth')
_SWIN_NO_DECAY = dict(no_decay=('norm', 'relative_position_bias_table'))
_BASELINES = [
    *_combine(
        'baselines', 'retinanet', 'poolformer_1x',
        _counted(_TABLE_3, resnet18='21.3', resnet50='37.7', resnet101='56.7'),
        lr=1e-4, params_frozen=False, **_FROZEN,
    ),
    *_combine(
        'baselines', 'mask-rcnn', 'poolformer_1x',
        _counted(_TABLE_3, resnet18='31.2', resnet50='44.2', resnet101='63.2'),
        params_frozen=False, **_FROZEN,
    ),
    *_combine('baselines', 'cascade-mask-rcnn', 'poolformer_1x', _RESNETS, **_FROZEN),
    *_combine(
        'baselines', 'semantic-fpn', 'resnet_40k',
        # The table prints 15.5 for ResNet-18, whose parameters are 15.43 million.
        {'resnet18': {}, **_counted(_TABLE_4, resnet50='28.5', resnet101='47.5')},
    ),
    *_combine('baselines', 'upernet', 'resnet_160k', _RESNETS),
    *_combine('baselines', 'faster-rcnn', 'sge_2x', _RESNETS, **_FROZEN),
    *_combine('baselines', 'mask-rcnn', 'sge_2x', _RESNETS, **_FROZEN),
    *_combine('baselines', 'cascade-rcnn', 'sge_20e', _RESNETS, **_FROZEN),
    *_combine(
        'baselines', 'retinanet', 'sge_2x', {'resnet50': {}, 'resnet101': dict(batch=8)},
        lr=0.01, **_FROZEN,
    ),
    *_combine('baselines', 'retinanet', 'poolformer_1x', _SWIN, lr=1e-4),
    *_combine(
        'baselines', 'mask-rcnn', 'xcit_3x',
        {'swin-tiny': dict(drop_path=0.2, params='48', source='README of Swin-Transformer')},
        **_SWIN_NO_DECAY,
    ),
    *_combine('baselines', 'cascade-mask-rcnn', 'xcit_3x', _SWIN, **_SWIN_NO_DECAY),
    *_combine(
        'baselines', 'upernet', 'xcit_160k',
        {'swin-tiny': dict(drop_path=0.3, params='60', source='README of Swin-Transformer')},
        **_SWIN_NO_DECAY, **_SWIN_MMSEG,
    ),
    *_combine('baselines', 'semantic-fpn', 'poolformer_40k', _SWIN, **_SWIN_MMSEG),
    *_digits('baselines', 'resnet-nano', 'swin-nano'),
]  # fmt: skip

#: Every config there is, except those in ``_base_``.
COMBINATIONS: tuple[Combination, ...] = (
    *_PATCHCONVNET,
    *_COATNET,
    *_POOLFORMER,
    *_METAFORMER,
    *_DEEPVIT,
    *_ATTN_RESNET,
    *_BASELINES,
)
