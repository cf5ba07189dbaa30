"""PatchConvNet's variants, fixtures and sizes."""

from attnpool_backbones.backbones import PatchConvNet
from tests.backbones.cases import Golden, Size, Variant

SMALL = dict(width=64, depth=4, layer_scale_init=1e-4)
ATTENTION = dict(SMALL, depth=3, trunk='attention', head_dim=32, image_size=96)


def _config(arch, **options):
    return dict(type='PatchConvNet', arch=arch, **options)


VARIANTS = [
    Variant(name='patchconvnet-nano', config=_config('nano'), compiled=True),
    Variant(name='patchconvnet-small', config=_config(SMALL)),
    Variant(name='patchconvnet-small-bn', config=_config(SMALL, norm_cfg=dict(type='BN'))),
    Variant(name='patchconvnet-small-linear', config=_config(dict(SMALL, patch_embed='linear'))),
    Variant(name='patchconvnet-small-attention', config=_config(ATTENTION)),
    Variant(
        name='patchconvnet-small-linear-attention-bn',
        config=_config(dict(ATTENTION, patch_embed='linear'), norm_cfg=dict(type='BN')),
    ),
    Variant(name='patchconvnet-small-last', config=_config(SMALL, out_indices=-1)),
    Variant(name='patchconvnet-small-early', config=_config(SMALL, out_indices=(0, 2))),
    *(
        Variant(name=f'patchconvnet-{arch}', config=_config(arch), slow=True)
        for arch in PatchConvNet.archs
        if not arch.startswith('nano')
    ),
]


def _compare(model, fixture, x):
    taps = model(x)
    yield 'stem', model.stem(x), fixture['stem']
    for index, tap in zip(model.out_indices, taps, strict=True):
        official = fixture['blocks'][index] if 'blocks' in fixture else fixture[f'block{index}']
        yield f'block {index}', tap, official
    yield 'trunk', taps[-1], fixture['trunk']

    tokens, maps = model.pool(taps[-1], return_maps=True)
    yield 'cls_tokens', tokens, fixture['cls_tokens']
    official = fixture['attn'][:, 0]  # B, K, tokens; with one class token, token 0 is that token
    positions = official.shape[-1] - (official.shape[1] == 1)
    yield 'maps', maps.flatten(2), official[..., -positions:]
    yield 'tokens without maps', model.pool(taps[-1]).tokens, fixture['cls_tokens']


def _golden(file, arch, depth):
    return Golden(
        file=f'patchconvnet_{file}',
        config=_config(arch, pooling=True, out_indices=depth),
        atol=2e-5,
        compare=_compare,
    )


GOLDEN = [
    _golden('small', SMALL, range(4)),
    _golden('small_96x64', SMALL, range(4)),
    _golden('small_multi', dict(SMALL, num_class_tokens=10), range(4)),
    _golden('s60', 's60', (19, 29, 39, 59)),
]


def _size(arch, width, tokens=1):
    # Classifier: the pooling layer is the backbone's (pooling=True); the head is one row a class.
    return Size(
        model=f'PatchConvNet-{arch if "_" in arch else arch.upper()}',
        config=_config(arch.lower(), pooling=True),
        backbone_config=_config(arch.lower()),
        head_params=1000 * (width + 1),
        head_macs=1000 * width / 1e9,
        slow=width > 384,
    )


SIZES = [
    _size('s60', 384),
    _size('s120', 384),
    _size('b60', 768),
    _size('b120', 768),
    _size('l60', 1024),
    _size('l120', 1024),
    _size('S60_multi', 384),
]
