import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attnpool_backbones.analysis import collapse
from attnpool_backbones.analysis.collapse import (
    attentions_of,
    collapse_of,
    compare_features,
    features_of,
    measure_collapse,
)
from attnpool_backbones.analysis.command import parser_of_figures
from attnpool_backbones.backbones import AttnResNet, CoAtNet, DeepViT, MetaFormer
from attnpool_backbones.command_line import UserError
from tests.analysis.subjects import as_subject, golden_subject

FILES = ['small_plain', 'small_reattn', 'small_reattn_cal', 'small_s_like_cal', 'S_64']


@pytest.mark.parametrize('file', FILES)
def test_similarity_of_adjacent_blocks_is_the_official_one(file, tmp_path):
    subject, fixture, inputs = golden_subject(f'deepvit_{file}', tmp_path)
    (found,) = collapse_of(subject, inputs)
    np.testing.assert_allclose(found['softmax'].adjacent[1], fixture['adj_cos_softmax'], atol=1e-5)
    mixed = found['mixed'] or found['softmax']
    np.testing.assert_allclose(mixed.adjacent[1], fixture['adj_cos_out'], atol=5e-4)


@pytest.mark.parametrize('chunk_bytes', [1, 5000, 1 << 30])
@pytest.mark.parametrize('form', ['softmax', 'mixed'])
@torch.no_grad()
def test_shares_and_heads_equal_a_plain_computation(form, chunk_bytes, tmp_path):
    subject, _, inputs = golden_subject('deepvit_small_reattn_cal', tmp_path)
    _, lazy_maps = subject.backbone.forward_lazy_maps(inputs, 4)
    maps = [getattr(of_block, form)() for of_block in lazy_maps]
    between = {
        k: [F.cosine_similarity(a, b, dim=2) for a, b in zip(maps, maps[k:], strict=False)]
        for k in (1, 2, 3)
    }  # B, H, N each
    pairs = [(h, g) for h in range(4) for g in range(h + 1, 4)]
    across = [
        torch.stack([F.cosine_similarity(one[:, h], one[:, g], dim=1) for h, g in pairs])
        for one in maps
    ]  # pairs, B, N each
    # Thresholds in the middle of what there is, so that shares are neither 0 nor 1.
    threshold = float(between[1][0].median()) + 1e-4
    head_threshold = float(across[0].median()) + 1e-4
    (group,) = attentions_of(subject.backbone, inputs)
    found = measure_collapse(
        group, form == 'mixed', threshold, head_threshold, chunk_bytes=chunk_bytes
    )
    for k, cosines in between.items():
        means = [float(c.mean()) for c in cosines]
        np.testing.assert_allclose(found.adjacent[k], means, atol=1e-5)
        shares = [float((c > threshold).float().mean()) for c in cosines]
        np.testing.assert_allclose(found.share[k], shares, atol=0.02)
    np.testing.assert_allclose(found.heads, [float(c.mean()) for c in across], atol=1e-5)
    shares = [float((c > head_threshold).float().mean()) for c in across]
    np.testing.assert_allclose(found.head_share, shares, atol=0.02)
    assert 0.2 < found.share[1][0] < 0.8 and 0.2 < found.head_share[0] < 0.8
    assert found.similar_blocks(0.0) == sum(value > 0 for value in found.adjacent[1])


@torch.no_grad()
def test_features_are_maps_times_values(tmp_path):
    subject, fixture, inputs = golden_subject('deepvit_small_reattn_cal', tmp_path)
    (group,) = attentions_of(subject.backbone, inputs)
    features = [features_of(attention, True, chunk_bytes=5000) for _, attention in group]
    for (name, attention), found, p in zip(group, features, range(4), strict=True):
        official = torch.from_numpy(fixture[f'attn_{p}']) @ attention.v
        torch.testing.assert_close(found, official, atol=2e-3, rtol=1e-3, msg=name)
    pairs = zip(features, features[1:], strict=False)
    plain = [float(F.cosine_similarity(a, b, dim=3).mean()) for a, b in pairs]
    similar, lengths = compare_features([attention for _, attention in group], True)
    np.testing.assert_allclose(similar, plain, atol=1e-6)
    for place, p in (('first', 0), ('middle', 2), ('last', 3)):
        torch.testing.assert_close(lengths[place], features[p][0].norm(dim=-1).mean(0))


@pytest.mark.parametrize(
    ('file', 'title'),
    [('small_reattn_cal', 'similar of {}: softmax {}, mixed {}'),
     ('small_plain', 'similar of {}: softmax {}')],
)  # fmt: skip
def test_the_title_counts_the_maps_that_multiply_values_too(file, title, tmp_path, monkeypatch):
    subject, _, _ = golden_subject(f'deepvit_{file}', tmp_path)
    monkeypatch.setattr(collapse, 'load_subject', lambda *args: subject)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), pixels)
    words = ['collapse', 'DeepViT', '--images', str(tmp_path / 'image.png')]
    drawing = collapse.draw(parser_of_figures().parse_args(words))
    (group,) = drawing.numbers['groups']
    counts = [group[form]['similar_blocks'] for form in ('softmax', 'mixed') if group[form]]
    shown = drawing.figure.axes[0].get_title().splitlines()[-1]
    assert shown == title.format(len(group['softmax']['layers']), *(f'{n:g}' for n in counts))


def test_layers_of_one_shape_are_a_group():
    model = MetaFormer(arch='caformer_nano')
    groups = attentions_of(model.eval(), torch.randn(1, 3, 64, 96))
    stages = [{name.split('.')[1] for name, _ in group} for group in groups]
    assert stages and all(len(stage) == 1 for stage in stages)


def test_layers_with_windows_are_left_out():
    model = DeepViT(arch='nano', window=2, global_every=2).eval()
    (group,) = attentions_of(model, torch.randn(1, 3, 64, 64))
    expected = [f'blocks.{i}.attn' for i in range(model.depth) if i % 2]
    assert [name for name, _ in group] == expected


@pytest.mark.parametrize(
    'model, message',
    [
        (lambda: AttnResNet(arch='nano'), 'has no self-attention'),
        (lambda: MetaFormer(arch='nano'), 'has no self-attention'),
        (lambda: CoAtNet(arch='nano', windows=(None, None, 4, 4)), 'no two attention layers'),
        (
            lambda: MetaFormer(arch='caformer_nano', windows=(None, None, 2, 2)),
            'no two attention layers',
        ),
        (lambda: DeepViT(arch='nano', window=2), 'no two attention layers'),
    ],
)
def test_models_without_such_maps_get_a_clear_line(model, message):
    with pytest.raises(UserError, match=message):
        collapse_of(as_subject(model()), torch.randn(1, 3, 64, 64))
