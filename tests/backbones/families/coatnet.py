"""CoAtNet's variants, fixtures and sizes."""

from dataclasses import replace
from itertools import product

import torch

from attnpool_backbones.backbones.coatnet import CoAtNet
from tests.backbones.cases import Golden, Size, Variant
from tests.golden import official_state_dict

SMALL = dict(widths=(32, 64, 96, 128), depths=(1, 2, 2, 1), stem_widths=(16, 16))
# What timm's models do differently from the paper's, in one small model each.
SMALL_RW = dict(
    SMALL,
    expand_from='in',
    attention_width='in',
    conv_act='silu',
    act_before=True,
    conv_bias=False,
    shortcut_bias=False,
    se_act='relu',
    se_early=True,
    stride_in='pool',
    pool='avg2',
)
SMALL_RMLP = dict(
    SMALL,
    expand_from='in',
    bias='mlp',
    bias_hidden=16,
    stride_in='dw',
    pool='max3',
    layer_scale_init=0.1,
)
SMALL_6 = dict(
    SMALL,
    layout=('C', 'C', 'CT', 'T'),
    depths=(1, 1, (1, 2), 1),
    widths=(16, 32, (32, 64), 96),
)
SMALL_VIT = dict(layout='TTTT', depths=(1,) * 4, widths=(64,) * 4, patch_size=16)


def _config(arch, **options):
    return dict(type='CoAtNet', arch=arch, **options)


VARIANTS = [
    Variant(name='coatnet-nano', config=_config('nano'), compiled=True),
    Variant(name='coatnet-small-bn-rw', config=_config(dict(SMALL_RW, norm='BN'))),
    Variant(name='coatnet-small-rmlp', config=_config(SMALL_RMLP)),
    Variant(name='coatnet-small-next', config=_config(dict(SMALL_RMLP, conv='convnext'))),
    Variant(name='coatnet-small-6', config=_config(SMALL_6)),
    Variant(name='coatnet-small-vit', config=_config(SMALL_VIT)),
    Variant(name='coatnet-small-windows', config=_config(SMALL, windows=(None, None, 4, 3))),
    Variant(
        name='coatnet-small-global',
        config=_config(SMALL, windows=(None, None, 4, 3), global_every=2),
    ),
    Variant(name='coatnet-small-after', config=_config(dict(SMALL, bias_place='after'))),
    Variant(name='coatnet-small-early', config=_config(SMALL, out_indices=(0, 2), out_norms=False)),
    Variant(name='coatnet-small-rw', config=_config(SMALL_RW), slow=True),
    *(
        Variant(name=f'coatnet-small-{name}', config=_config(dict(SMALL, **fields)), slow=True)
        for name, fields in {
            'dw': dict(stride_in='dw', pool='avg2'),
            'norel': dict(bias='none'),
            'cccc': dict(layout='CCCC'),
            'cttt': dict(layout='CTTT'),
        }.items()
    ),
    *(
        Variant(name=f'coatnet-{arch}', config=_config(arch), slow=True)
        for arch in CoAtNet.archs
        if arch not in ('nano', '4', '5', '6', '7', 'timm_4', 'timm_5')
        and not arch.startswith(('nano_c', 'nano_after', 'nano_vit'))
    ),
]


def _compare(model, fixture, x):
    maps = []
    x = model.stem(x)
    yield 'stem', x, fixture['stem']
    for index, stage in enumerate(model.stages, 1):
        for block in stage.blocks:
            x = block(x)
        maps.append(x)
        yield f'stage {index}', x, fixture[f'stage{index}']
    for got, y in zip(model(torch.from_numpy(fixture['input'])), maps, strict=True):
        assert (model.out_norms is not None) or torch.equal(got, y)

    weights = official_state_dict(fixture)
    channels = x.shape[1:2]
    if 'final_norm' in fixture:
        x = model(torch.from_numpy(fixture['input']))[-1]
        yield 'final norm', x, fixture['final_norm']
    x = x.mean((2, 3))
    if 'head.norm.weight' in weights:
        head = [weights[f'head.{name}'] for name in ('norm.weight', 'norm.bias')]
        x = torch.nn.functional.layer_norm(x, channels, *head, 1e-6)
        head = [weights[f'head.pre_logits.fc.{name}'] for name in ('weight', 'bias')]
        x = torch.nn.functional.linear(x, *head).tanh()
    head = [weights[f'head.fc.{name}'] for name in ('weight', 'bias')]
    yield 'logits', torch.nn.functional.linear(x, *head), fixture['logits']


def _golden(file, arch):
    # The deep maps reach 14; float32 runs of the official code are off by 1e-5 themselves.
    return Golden(
        file=f'coatnet_{file}',
        config=_config(arch, pretrain_size=64),
        atol=2e-5,
        compare=_compare,
    )


GOLDEN = [
    _golden('small_paper', SMALL),
    _golden('small_dwstride', dict(SMALL, stride_in='dw')),
    _golden('small_norel', dict(SMALL, bias='none')),
    _golden('small_cccc', dict(SMALL, layout='CCCC')),
    _golden('small_ccct', dict(SMALL, layout='CCCT')),
    _golden('small_cttt', dict(SMALL, layout='CTTT')),
    _golden('0_224', 'timm_0'),
    _golden('0_rw_224', '0_rw'),
    _golden('nano_rw_224', 'nano_rw'),
    _golden('rmlp_nano_rw_224', 'rmlp_nano_rw'),
]


def _size(model, arch, tanh_head, tables=224, **options):
    width = arch.segments(3)[-1][-1]
    hidden = width * (width + 1) if tanh_head else 0
    return Size(
        model=model,
        config=_config(arch, out_norms=False, pretrain_size=tables),
        head_params=2 * width + hidden + 1000 * (width + 1),
        head_macs=(tanh_head * width**2 + 1000 * width) / 1e9,
        slow=sum(depth for s in range(4) for _, depth, _ in arch.segments(s)) > 15,
        **options,
    )


def _paper_sizes():
    """Classifier rows have tables for their input, backbone rows tables for 224."""
    for name, expand, stride in product('012345', ('out', 'in'), ('1x1', 'depthwise')):
        arch = replace(
            CoAtNet.archs[name], expand_from=expand, stride_in=stride.replace('depthwise', 'dw')
        )
        for head in ('FC head with LN', 'tanh-MLP head'):
            model = f'CoAtNet-{name} [expand {expand}, {head}, stride in {stride}]'
            for side in (224, 384, 512):
                yield _size(model, arch, 'tanh' in head, side, input=f'{side}x{side}')
        yield _size(f'CoAtNet-{name} [expand {expand}, stride in {stride}]', arch, False)
    for name, expand, head in product('67', ('out', 'in'), ('', ', FC head with LN')):
        # These rows say "tables for 224", but they count those for 512, for which the paper has
        # these models: (2 * 32 - 1)**2 = 3969 entries a head at stride 16 in place of 27**2 = 729,
        # 31**2 = 961 at stride 32 in place of 13**2 = 169.
        arch = replace(CoAtNet.archs[name], expand_from=expand)
        yield _size(f'CoAtNet-{name} [expand {expand}{head}]', arch, False, 512)


SIZES = [
    *(
        _size(f'coatnet_{name}_224', CoAtNet.archs[f'timm_{name}'], tanh_head=True)
        for name in '012345'
    ),
    *(
        _size(f'coatnet_{name}_224', CoAtNet.archs[name], tanh_head=False)
        for name in (
            'pico_rw',
            'nano_rw',
            '0_rw',
            '1_rw',
            '2_rw',
            '3_rw',
            'bn_0_rw',
            'rmlp_nano_rw',
            'rmlp_0_rw',
            'rmlp_1_rw',
            'rmlp_1_rw2',
            'rmlp_2_rw',
            'rmlp_3_rw',
            'nano_cc',
        )
    ),
    _size('coatnet_rmlp_2_rw_384', CoAtNet.archs['rmlp_2_rw'], tanh_head=False),
    _size('coatnext_nano_rw_224', CoAtNet.archs['next_nano_rw'], tanh_head=False),
    _size(
        'test_coatnet',
        replace(
            CoAtNet.archs['nano_rw'],
            depths=(1, 1, 2, 1),
            widths=(32, 64, 96, 128),
            stem_widths=(16, 32),
        ),
        tanh_head=False,
        tables=160,
    ),
    *_paper_sizes(),
]
