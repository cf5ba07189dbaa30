"""DeepViT's variants, fixtures and sizes."""

from dataclasses import asdict

import torch
from torch.nn import functional as F

from attnpool_backbones.backbones import DeepViT
from tests.backbones.cases import Golden, Size, Variant

SMALL = dict(width=96, depth=4, num_heads=4, image_size=64, reattention=(0, 1, 2, 3))
PLAIN = dict(SMALL, reattention=())
S_LIKE = dict(SMALL, reattention=(2, 3), scale_maps=True, residual_scale=0.5, cnn_embedding=True)


def _config(arch, **options):
    return dict(type='DeepViT', arch=arch, **options)


VARIANTS = [
    Variant(name='deepvit-nano', config=_config('nano')),
    Variant(name='deepvit-small', config=_config(SMALL)),
    Variant(name='deepvit-small-fixed', config=_config(SMALL, stats_tokens='fixed')),
    Variant(name='deepvit-small-ln', config=_config(SMALL, map_norm='LN', out_norm='all')),
    Variant(name='deepvit-small-nonorm', config=_config(SMALL, map_norm=None)),
    Variant(name='deepvit-small-windows', config=_config(SMALL, window=3, global_every=2)),
    Variant(name='deepvit-small-plain', config=_config(PLAIN, out_norm='final')),
    Variant(name='deepvit-small-s_like', config=_config(S_LIKE), compiled=True),
    Variant(name='deepvit-small-last', config=_config(S_LIKE, out_indices=-1)),
    Variant(name='deepvit-small-early', config=_config(S_LIKE, out_indices=(0, 2))),
    *(
        Variant(name=f'deepvit-{arch}', config=_config(arch), slow=True)
        for arch in DeepViT.archs
        if not arch.startswith('nano')
    ),
]


def _adjacent_cosine(maps):
    """Mean cosine of the columns of the maps of adjacent blocks: attention collapse."""
    return torch.stack(
        [F.cosine_similarity(a, b, dim=2).mean() for a, b in zip(maps[:-1], maps[1:], strict=True)]
    )


def _compare(model, fixture, x):
    yield 'patch_embed', model.stem.embed(x), fixture['patch_embed']
    taps, lazy_maps = model.forward_lazy_maps(x, 2)
    yield 'trunk', taps[-1], fixture['trunk']
    tokens, softmax, mixed = model.stem(x), [], []
    for index, block in enumerate(model.blocks):
        tokens, maps = block(tokens, with_maps=True)
        softmax.append(maps.softmax())
        mixed.append(maps.mixed())
        yield f'attn_softmax_{index}', softmax[-1], fixture[f'attn_softmax_{index}']
        yield f'attn_{index}', mixed[-1], fixture[f'attn_{index}']
        yield f'block_{index}', tokens, fixture[f'block_{index}']
        if index < len(model.blocks) - 1:  # the last tap is the trunk
            yield f'tap {index}', taps[index].flatten(2).mT, fixture[f'block_{index}'][:, 1:]
    for index, maps in enumerate(lazy_maps):
        yield f'rows of attn_{index}', maps.mixed(slice(3, 9)), fixture[f'attn_{index}'][:, :, 3:9]
    yield 'adj_cos_softmax', _adjacent_cosine(softmax), fixture['adj_cos_softmax']
    yield 'adj_cos_out', _adjacent_cosine(mixed), fixture['adj_cos_out']


def _golden(file, arch, depth, atol):
    config = _config(arch, out_norm='final', out_indices=range(depth))
    return Golden(file=f'deepvit_{file}', config=config, atol=atol, compare=_compare)


GOLDEN = [
    _golden('small_plain', PLAIN, 4, 1e-5),
    _golden('small_reattn', SMALL, 4, 1e-5),
    _golden('small_reattn_cal', SMALL, 4, 5e-4),
    _golden('small_s_like_cal', S_LIKE, 4, 5e-4),
    # Its tokens reach 26: the fixture itself is 2e-5 away from the same in float64.
    _golden('S_64', dict(asdict(DeepViT.archs['s']), image_size=64), 16, 5e-5),
]


def _size(model, arch, **options):
    width = DeepViT.archs[arch].width
    return Size(
        model=model,
        config=_config(arch, out_indices=-1, out_norm='final'),
        # A table of positions belongs to the backbone, the final norm does not.
        backbone_config=_config(arch, out_indices=-1),
        head_params=1000 * (width + 1),
        head_macs=1000 * width / 1e9,
        **options,
    )


SIZES = [
    _size('DeepViT-16 (dim 384)', '16b'),
    _size('DeepViT-24 (dim 384)', '24b'),
    _size('DeepViT-32 (dim 384)', '32b'),
    _size('DeepViT-S', 's'),
    _size('DeepViT-L', 'l', input='224x224'),
    _size('DeepViT-L', 'l_384', input='384x384'),
    _size('ViT-12 (dim 384)', 'vit_12b'),
    _size('ViT-16 (dim 384)', 'vit_16b'),
    _size('ViT-24 (dim 384)', 'vit_24b'),
    _size('ViT-32 (dim 384)', 'vit_32b'),
    _size('ViT-12 (dim 256, 8 heads)', 'vit_12b_256'),
    _size('ViT-12 (dim 512, 8 heads)', 'vit_12b_512'),
    _size('ViT-12 (dim 768, 12 heads)', 'vit_12b_768'),
]
