"""The attention ResNets' variants, fixtures and sizes."""

import torch

from attnpool_backbones.layers.attention_units import ATTENTIONS, POOLING_UNITS
from attnpool_backbones.zoo.complexity import count_macs
from tests.backbones.cases import Golden, Size, Variant
from tests.backbones.insight_flops import count_insight_flops

PUBLISHED = ('sge', 'se', 'cbam', 'gc', 'sk', 'bam')  # sizes of these are in model_sizes.csv
TINY = dict(depths=(1, 2, 1, 1), widths=(8, 16, 24, 32), reduction=4)


def _config(arch, **options):
    return dict(type='AttnResNet', arch=arch, **options)


def _tiny(name, arch=(), **options):
    return Variant(name=f'attn_resnet-{name}', config=_config(dict(TINY, **dict(arch)), **options))


VARIANTS = [
    Variant(name='attn_resnet-nano', config=_config('nano'), compiled=True),
    _tiny('plain'),
    *(_tiny(unit, dict(attention=unit, groups=8)) for unit in ATTENTIONS),
    *(
        _tiny(f'basic-{unit}', dict(attention=unit, groups=8, bottleneck=False))
        for unit in ATTENTIONS
        if unit != 'sk'
    ),
    _tiny('sge-late', dict(attention='sge', groups=8, attention_stages=(2, 3))),
    _tiny('sge-unnormalized', dict(attention='sge', groups=8, normalize=False)),
    _tiny('sge-scaled', dict(attention='sge', groups=4, scale_init=1.0, shift_init=0.5)),
    *(
        _tiny(f'{unit}-attnpool', dict(attention=unit, pool_heads=4)) for unit in POOLING_UNITS
    ),
    _tiny('bam-early', dict(attention='bam'), out_indices=(0, 1)),
    _tiny('sge-gn', dict(attention='sge', groups=8), norm_cfg=dict(type='GN', num_groups=4)),
    *(
        Variant(name=f'attn_resnet-{prefix}resnet{depth}', config=_config(f'{prefix}resnet{depth}'),
                slow=True)
        for prefix in ('', *(f'{unit}_' for unit in ATTENTIONS))
        for depth in (18, 34, 50, 101)
        if prefix != 'sk_' or depth >= 50
    ),
]  # fmt: skip


def _compare(model, fixture, x):
    for index, y in enumerate(model(x)):
        yield f'stage {index}', y, fixture[f'out{index}']


def _compare_bam(model, fixture, x):
    yield from _compare(model, fixture, x)
    y = model.stem(x)
    for index in range(3):
        y = model.stages[index](y)
        yield f'stage {index} before its BAM', y, fixture[f'pre{index}']
        y = getattr(model, f'bam{index + 1}')(y)


GOLDEN = [
    Golden(file=file, config=_config(arch), atol=1e-4, compare=compare)
    for file, arch, compare in (
        ('resnet50', 'resnet50', _compare),
        *(
            (f'{unit}_resnet50', f'{unit}_resnet50', _compare)
            for unit in ATTENTIONS
            if unit != 'bam'
        ),
        ('bam_resnet50_64', 'bam_resnet50', _compare_bam),
    )
]


def _gflops(model, input_size):
    # Detection's GC has no classifier and so no average pooling.
    return count_insight_flops(model, input_size, model.arch.attention != 'gc') / 1e9


def _gflops_with_attention_pooling(model, input_size):
    flops = count_insight_flops(model, input_size, average_pooling=False)
    positions = [-(-side // 32) for side in input_size]
    x = torch.zeros(1, model.out_channels[-1], *positions, device='meta')
    return (flops + count_macs(lambda: model.pool(x))) / 1e9


def _size(unit, depth):
    prefix = f'{unit}_' if unit else ''
    if unit == 'sk' and depth < 50:
        prefix = ''  # the official ones are plain ResNets
    channels = 2048 if depth >= 50 else 512
    return Size(
        model=f'{unit.upper()}-ResNet-{depth}'.lstrip('-') + '*' * (unit == 'sk' and depth >= 50),
        config=_config(f'{prefix}resnet{depth}'),
        head_params=1000 * (channels + 1),
        head_macs=1000 * channels / 1e9,
        count_macs=_gflops,
    )


SIZES = [
    *(
        _size(unit, depth)
        for unit in ('', *PUBLISHED)
        for depth in (18, 34, 50, 101)
        if unit != 'gc' or depth >= 50
    ),
    Size(
        model='ResNet-50 + attention pooling',
        config=_config('resnet50', pooling=True),
        backbone_config=_config('resnet50'),
        head_params=1000 * 2049,
        head_macs=2048 * 1000 / 1e9,
        count_macs=_gflops_with_attention_pooling,
    ),
]
