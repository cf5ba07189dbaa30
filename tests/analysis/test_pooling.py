import json

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from attnpool_backbones.analysis import pooling
from attnpool_backbones.analysis.command import parser_of_figures
from attnpool_backbones.analysis.drawing import Drawing, save
from attnpool_backbones.analysis.pooling import effective_positions, pool
from attnpool_backbones.analysis.subjects import load_subject
from attnpool_backbones.backbones import DeepViT, PatchConvNet
from attnpool_backbones.command_line import UserError
from attnpool_backbones.heads import AttentionPoolingHead
from attnpool_backbones.heads.image_tag_head import ImageTagHead
from tests.analysis.subjects import as_subject, golden_subject


@pytest.mark.parametrize('file, tokens', [('small', 1), ('small_multi', 10)])
def test_maps_and_logits_are_the_official_ones(file, tokens, tmp_path):
    subject, fixture, inputs = golden_subject(f'patchconvnet_{file}', tmp_path)
    maps, logits, _ = pool(subject, inputs)
    assert maps.shape == (2, tokens, 4, 4)
    np.testing.assert_allclose(maps.flatten(2).numpy(), fixture['attn'][:, 0][..., -16:], atol=1e-5)
    np.testing.assert_allclose(logits.numpy(), fixture['logits'], atol=1e-4)


def test_logits_of_a_file_in_half_precision(tmp_path):
    state = PatchConvNet(arch='nano', pooling=True).state_dict()
    state |= {'head.weight': torch.randn(5, 128), 'head.bias': torch.randn(5)}
    file = tmp_path / 'half.pth'
    torch.save({name: value.half() for name, value in state.items()}, file)
    subject = load_subject('PatchConvNet:nano', str(file), 64, False, 'cpu')
    _, logits, _ = pool(subject, torch.randn(1, 3, 64, 64))
    assert logits.shape == (1, 5) and logits.dtype == torch.float32


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = PatchConvNet(arch='nano')
        self.head = AttentionPoolingHead(128, 3, per_class=True)


@torch.no_grad()
def test_a_head_of_the_model_comes_first():
    model, x = Tagger(), torch.randn(1, 3, 64, 96)
    maps, logits, _ = pool(as_subject(model), x)
    expected = model.head(model.backbone(x)[-1], return_maps=True)
    torch.testing.assert_close(maps, expected.maps)
    torch.testing.assert_close(logits, expected.logits)
    assert maps.shape == (1, 3, 8, 12)


@torch.no_grad()
def test_padding_of_a_detector_is_not_attended_to():
    model = Tagger()
    model.image_head = ImageTagHead(128, 3)
    x = torch.randn(1, 3, 64, 96)
    maps, logits, _ = pool(as_subject(model), x, (50, 64))
    expected = model.image_head(model.backbone(x)[-1][..., :7, :8], return_maps=True)
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(maps[..., :7, :8], expected.maps)
    assert maps.shape == (1, 3, 8, 12) and not maps[..., 7:, :].any() and not maps[..., 8:].any()


AVERAGE = dict(type='attnpool_backbones.AveragePoolingHead')
ONE_TOKEN = dict(type='attnpool_backbones.AttentionPoolingHead')


@pytest.mark.parametrize(
    ('head', 'classes', 'per_class'),
    [(None, 1, True), (None, 3, True), (AVERAGE, 1, True), (ONE_TOKEN, 1, False),
     (ONE_TOKEN, 3, False)],
)  # fmt: skip
def test_the_map_of_the_only_class_is_no_class_token(
    head, classes, per_class, tmp_path, monkeypatch
):
    model = Tagger()
    model.image_head = ImageTagHead(128, classes, pooling=head)
    subject = as_subject(model, classes=('cat', 'dog', 'cow')[:classes])
    monkeypatch.setattr(pooling, 'load_subject', lambda *args: subject)
    cv2.imwrite(str(tmp_path / 'image.png'), np.full((64, 64, 3), 127, np.uint8))
    args = ['pooling', 'model', '--images', str(tmp_path / 'image.png')]
    drawing = pooling.draw(parser_of_figures().parse_args(args))
    (entry,) = drawing.numbers['images']
    if per_class:
        assert 'cat' in [found['name'] for found in entry['classes']]
        assert len(drawing.figure.axes) == 2 + classes
    else:
        assert 'class_token' in entry


def test_models_without_pooling_get_a_clear_line():
    for model in (DeepViT(arch='nano'), PatchConvNet(arch='nano')):
        with pytest.raises(UserError, match='no attention pooling.*pooling=True'):
            pool(as_subject(model), torch.randn(1, 3, 64, 64))


def test_effective_positions():
    assert effective_positions(torch.full((3, 4), 0.05)) == pytest.approx(12)
    assert effective_positions(torch.tensor([[0.0, 0.9]])) == pytest.approx(1)
    assert effective_positions(torch.zeros(3, 4)) == 0


def test_numbers_are_json_that_every_program_reads(tmp_path):
    numbers = dict(a=float('nan'), b=torch.tensor([1.0, float('inf')]))
    _, file = save(Drawing(Figure(), numbers, ''), tmp_path, 'figure')
    assert json.loads(file.read_text()) == dict(reading='', a=None, b=[1.0, None])
