"""Views of one image are merged into one label map, also of two classes that share a channel."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmseg.structures import SegDataSample  # noqa: E402

from attnpool_backbones.engine.semantic_tta import SemanticTTAModel  # noqa: E402
from attnpool_backbones.experiments.nano_heads import nano_config  # noqa: E402
from attnpool_backbones.launching.config_models import build_config_model  # noqa: E402

HEIGHT, WIDTH = 20, 30


@pytest.fixture(scope='module', params=[1, 2])
def segmentor(request: pytest.FixtureRequest) -> torch.nn.Module:
    """Returns a segmentor of two classes whose logits are the pixels, in one channel or in two."""
    cfg = nano_config('resnet', 'semantic-fpn')
    cfg.model.decode_head.update(num_classes=2, out_channels=request.param)
    one = request.param == 1
    cfg.model.decode_head.loss_decode = dict(type='mmseg.CrossEntropyLoss', use_sigmoid=one)
    if one:
        cfg.model.decode_head.threshold = 0.3
    model = build_config_model(cfg).eval()
    channels = slice(1) if one else slice(2)
    model.encode_decode = lambda inputs, metas: inputs[:, channels]
    return model


def predicted(model: torch.nn.Module, logits: torch.Tensor, flip: bool) -> SegDataSample:
    """Predicts an image with these logits, flipped for the model."""
    meta = dict(ori_shape=(HEIGHT, WIDTH), img_path='', flip=flip, flip_direction='horizontal')
    inputs = logits[None].flip(3) if flip else logits[None]
    return model.predict(inputs, [SegDataSample(metainfo=meta)])[0]


def test_equal_views_change_nothing(segmentor):
    logits = torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    plain, *views = (predicted(segmentor, logits, flip) for flip in (False, False, True))
    expected = plain.pred_sem_seg.data
    assert 0.2 < expected.float().mean() < 0.9
    (merged,) = SemanticTTAModel(module=segmentor).merge_preds([views])
    assert torch.equal(merged.pred_sem_seg.data.reshape(expected.shape).long(), expected.long())


def test_probabilities_are_averaged(segmentor):
    count = segmentor.out_channels
    probability = [torch.tensor([0.05, 0.2, 0.9]), torch.tensor([0.4, 0.45, 0.01])]
    views = []
    for p, flip in zip(probability, (False, True), strict=True):
        odds = (p / (1 - p)).log()[:, None, None].expand(3, HEIGHT, WIDTH // 3)
        odds = torch.cat(tuple(odds), 1)[None]  # each third of the image has one of them
        logits = torch.cat([odds] * 3) if count == 1 else torch.cat([0 * odds, odds, odds])
        views.append(predicted(segmentor, logits, flip))
    (merged,) = SemanticTTAModel(module=segmentor).merge_preds([views])
    thirds = merged.pred_sem_seg.data.reshape(HEIGHT, 3, -1)
    # the means are 0.225, 0.325 and 0.455; two channels compare with one half
    assert thirds.float().mean((0, 2)).tolist() == ([0, 1, 1] if count == 1 else [0, 0, 0])
