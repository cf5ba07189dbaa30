"""MetaFormer's variants, fixtures and sizes."""

import torch

from attnpool_backbones.backbones import MetaFormer
from attnpool_backbones.zoo.complexity import count_macs
from tests.backbones.cases import Golden, Size, Variant

TINY = dict(depths=(1, 1, 2, 1), widths=(16, 32, 64, 96))
TINY_V2 = dict(
    TINY,
    act='star_relu',
    bias=False,
    norm_eps=1e-6,
    norm_bias=False,
    layer_scale_init=None,
    res_scale_stages=(2, 3),
    patch_norm=True,
)
PPPA = dict(TINY, mixers=('pool', 'pool', 'pool', 'attention'), norm='layer', pos_embed_stages=(3,))
PPPF = dict(TINY, mixers=('pool', 'pool', 'pool', 'spatial_fc'))
CAFORMER = dict(TINY_V2, mixers=('sepconv', 'sepconv', 'attention', 'attention'), norm='layer')
RANDFORMER = dict(TINY_V2, mixers=('identity', 'identity', 'random', 'random'))

LARGE = [
    arch for arch in MetaFormer.archs
    if arch != 'caformer_nano' and not arch.startswith(('nano', 'poolformer_s12_'))
]  # fmt: skip
ABLATIONS = dict(
    pool5=dict(pool_size=5),
    pool9=dict(pool_size=9),
    random=dict(mixers=('random',) * 4),
    dwconv=dict(mixers=('dwconv',) * 4),
    batchnorm=dict(norm='batch', out_norm='batch'),
    nonorm=dict(norm='none'),
    relu=dict(act='relu'),
    silu=dict(act='silu'),
    noresidual=dict(residual=False, layer_scale_init=1.0, out_norm='global'),
    nomlp=dict(mlp=False),
    nolayerscale=dict(layer_scale_init=None),
    aaaa=dict(mixers=('attention',) * 4, norm='layer', pos_embed_stages=(0,)),
    ffff=dict(mixers=('spatial_fc',) * 4),
)


def _config(arch, **options):
    return dict(type='MetaFormer', arch=arch, **options)


VARIANTS = [
    Variant(name='metaformer-nano', config=_config('nano'), compiled=True),
    Variant(name='metaformer-caformer_nano', config=_config('caformer_nano')),
    Variant(
        name='metaformer-tiny-windows',
        config=_config(CAFORMER, windows=(None, None, 4, 2), global_every=2),
    ),
    Variant(name='metaformer-tiny-pppa', config=_config(PPPA)),
    Variant(name='metaformer-tiny-pppf', config=_config(PPPF)),
    Variant(name='metaformer-tiny-last3', config=_config('nano', out_indices=(1, 2, 3))),
    Variant(name='metaformer-tiny-early', config=_config(CAFORMER, out_indices=(0, 2))),
    Variant(name='metaformer-tiny-randformer', config=_config(RANDFORMER, out_norm='layer')),
    *(
        Variant(name=f'metaformer-tiny-{name}', config=_config(dict(TINY, **fields)))
        for name, fields in ABLATIONS.items()
    ),
    *(Variant(name=f'metaformer-{arch}', config=_config(arch), slow=True) for arch in LARGE),
]


def _compare(model, fixture, x):
    for index, y in zip(model.out_indices, model(x), strict=True):
        yield f'out{index}', y, fixture[f'out{index}']
    if 'raw0' in fixture:
        y = model.stem(x)
        for index, stage in enumerate(model.stages):
            y = stage.downsample(y)
            for block in stage.blocks:
                y = block(y)
            yield f'raw{index}', y, fixture[f'raw{index}']


def _golden(file, arch, **options):
    return Golden(file=file, config=_config(arch, **options), atol=2e-5, compare=_compare)


POOLFORMER = dict(TINY, widths=(16, 32, 40, 64), out_norm='global')
GOLDEN = [
    _golden('poolformer_s12', 'poolformer_s12'),
    _golden('poolformer_tiny', POOLFORMER),
    # Without its norm, output 0 is not a map of any model here; it is compared as raw0.
    _golden('poolformer_tiny_last3', POOLFORMER, out_indices=(1, 2, 3)),
    _golden('poolformer_hybrid_id', dict(TINY, mixers=('identity',) * 4)),
    _golden('poolformer_hybrid_pppa', PPPA, pretrain_img_size=(96, 64)),
    _golden('poolformer_hybrid_pppf', PPPF, pretrain_img_size=(96, 64)),
    *(
        _golden(f'metaformer_{name}_tiny_official', arch, pretrain_img_size=(96, 64))
        for name, arch in dict(
            identityformer=dict(TINY_V2, mixers=('identity',) * 4),
            randformer=RANDFORMER,
            poolformerv2=TINY_V2,
            convformer=dict(TINY_V2, mixers=('sepconv',) * 4, norm='layer'),
            caformer=CAFORMER,
        ).items()
    ),
]


def _sizes_of_poolformer(size):
    width = MetaFormer.archs[f'poolformer_{size}'].widths[-1]
    slow = size != 's12'
    return (
        Size(
            model=f'PoolFormer-{size.upper()}',
            # The classifier has one norm after the last stage instead of those of the outputs.
            config=_config(f'poolformer_{size}', out_norm='none'),
            backbone_config=_config(f'poolformer_{size}'),
            head_params=2 * width + 1000 * (width + 1),
            head_macs=1000 * width / 1e9,
            slow=slow,
        ),
        Size(
            model=f'PoolFormer-{size.upper()} (FORK_LAST3)',
            config=_config(f'poolformer_{size}', out_indices=(1, 2, 3)),
            slow=slow,
        ),
    )


def _size_of_hybrid(mixers, arch):
    return Size(
        model=f'Hybrid S12 [{mixers}]',
        config=_config(f'metaformer_{arch}_s12'),
        head_params=2 * 512 + 1000 * 513,
        head_macs=1000 * 512 / 1e9,
    )


def _size_of_second_paper(name, size):
    arch = f'{name}_{size}'.lower()
    width = MetaFormer.archs[arch].widths[-1]
    params = macs = 1000 * width
    params += 1000
    if name in ('ConvFormer', 'CAFormer'):  # an MLP with a norm inside as the classifier
        macs = 4 * width * (width + 1000)
        params = macs + 4 * width + 1000 + 2 * 4 * width

    def count_like_readme(model, input_size):
        x = torch.zeros(1, 3, *input_size, device='meta')
        # The README rounds to one digit, which can be more than 1 %.
        return round((count_macs(lambda: model(x)) + macs) / 1e9, 1)

    return Size(
        model=f'{name}-{size.upper()}',
        config=_config(arch),
        head_params=2 * width + params,
        count_macs=count_like_readme,
        slow=size not in ('s12', 's18'),
    )


SIZES = [
    *(case for size in ('s12', 's24', 's36', 'm36', 'm48') for case in _sizes_of_poolformer(size)),
    _size_of_hybrid('Identity x 4', 'id'),
    _size_of_hybrid('Pool,Pool,Pool,Attention', 'pppa'),
    _size_of_hybrid('Pool,Pool,Attention,Attention', 'ppaa'),
    _size_of_hybrid('Pool,Pool,Pool,SpatialFC', 'pppf'),
    _size_of_hybrid('Pool,Pool,SpatialFC,SpatialFC', 'ppff'),
    *(
        _size_of_second_paper(name, size)
        for name in ('IdentityFormer', 'RandFormer', 'PoolFormerV2')
        for size in ('s12', 's24', 's36', 'm36', 'm48')
    ),
    *(
        _size_of_second_paper(name, size)
        for name in ('ConvFormer', 'CAFormer')
        for size in ('s18', 's36', 'm36', 'b36')
    ),
]
