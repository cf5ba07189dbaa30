import cv2
import numpy as np
import pytest
import torch

from attnpool_backbones.analysis import activations
from attnpool_backbones.analysis.activations import (
    activations_of,
    bootstrap_ratio,
    distribution,
    groups_of,
)
from attnpool_backbones.analysis.command import parser_of_figures
from attnpool_backbones.backbones import AttnResNet
from attnpool_backbones.command_line import UserError
from tests.analysis.subjects import as_subject


def test_nothing_changes_at_initialisation():
    subject = as_subject(AttnResNet(arch='sge_resnet_nano'))
    found = activations_of(subject, torch.randn(1, 3, 64, 96))
    assert len(found) == sum(subject.backbone.arch.depths)
    for before, after in found.values():
        assert torch.equal(before, after)
        one, other = (distribution(a, 0.5) for a in (before, after))
        assert other.variance / one.variance == 1
    assert bootstrap_ratio([2.0, 3.0, 7.0] * 4, [2.0, 3.0, 7.0] * 4) == (1, 1, 1)


def test_activations_are_lengths_over_their_mean():
    x, gate = torch.randn(1, 6, 4, 5), torch.rand(1, 2, 4, 5) + 0.1
    before, after = groups_of(x, gate)
    for g in range(2):
        part = x[0, 3 * g : 3 * g + 3]
        for found, values in ((before, part), (after, part * gate[0, g])):
            lengths = values.double().square().sum(0).sqrt().flatten()
            torch.testing.assert_close(found[g], lengths / lengths.mean(), atol=1e-6, rtol=1e-6)


def test_distribution():
    values = torch.tensor([[0.0, 2.0, 1.0, 1.0], [0.4, 1.6, 0.2, 9.0]], dtype=torch.float64)
    found = distribution(values, 0.5)
    rows = values.numpy()
    assert found.variance == pytest.approx(np.mean([row.var() for row in rows]))
    assert found.small == 3 / 8
    assert found.histogram.sum() == pytest.approx(1) and found.histogram[-1] == 1 / 8
    assert found.deciles[4] == pytest.approx(np.median(rows))


def test_interval_covers_the_ratio_and_grows_with_the_spread():
    generator = np.random.default_rng(1)
    below = np.ones(200)
    narrow, wide = (1.5 + s * generator.standard_normal(200) for s in (0.1, 1.0))
    for above in (narrow, wide):
        ratio, low, high = bootstrap_ratio(above, below)
        assert low < ratio < high
        # About two standard errors to each side.
        assert high - low == pytest.approx(4 * above.std() / 200**0.5, rel=0.15)


@pytest.mark.parametrize('images, known', [(1, False), (9, False), (10, True)])
def test_few_images_have_no_interval(images, known):
    above = np.linspace(1, 2, images)
    ratio, low, high = bootstrap_ratio(above, np.ones(images))
    assert ratio == pytest.approx(above.mean())
    assert low < ratio < high if known else (low, high) == (None, None)


@pytest.mark.parametrize('images', [4, 12])
def test_the_figure_tells_how_many_images_there_are(images, monkeypatch, tmp_path):
    subject = as_subject(AttnResNet(arch='sge_resnet_nano'))
    monkeypatch.setattr(activations, 'load_subject', lambda *args: subject)
    for index in range(images):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{index}.png'), pixels)
    options = parser_of_figures().parse_args(['activations', 'SGE', '--images', str(tmp_path)])
    drawing = activations.draw(options)
    drawing.figure.draw_without_rendering()
    assert len(drawing.numbers['images']) == images
    title = drawing.figure.axes[1].get_title()
    assert title.endswith(f', images={images}') and ('[' in title) == (images == 12)


def test_models_without_sge_get_a_clear_line():
    with pytest.raises(UserError, match='has no SGE'):
        activations_of(as_subject(AttnResNet(arch='resnet_nano')), torch.randn(1, 3, 64, 64))
