"""An image-level head beside detectors and segmentors, through the real Runner."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.dense_models.image_head_mixins import (
    DetectorWithImageHead,
    SegmentorWithImageHead,
)
from attnpool_backbones.dense_models.image_tagger import BackboneAlone
from attnpool_backbones.dense_models.image_tags import make_tags, merge_tags, stitched, true_tags
from attnpool_backbones.launching.config_keys import require_known_keys
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.mmcv_operators.model_trial import shipped
from attnpool_backbones.registry import MODELS
from tests.dense_models.tagged_runs import CONFIGS, SIDE, build, make_config

every_head = pytest.mark.parametrize('head', CONFIGS)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=4, val=2, size=SIDE)
    return root


def trained(cfg):
    runner, record = build(cfg)
    runner.train()
    return runner, record.losses, torch.get_rng_state()


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU adds gradients in any order')
@every_head
def test_weight_0_changes_no_bit(head, scenes, tmp_path):
    _, plain, state = trained(make_config(head, scenes, tmp_path / 'plain'))
    runner, losses, own = trained(
        make_config(head, scenes, tmp_path / 'head', image_head=dict(loss_weight=0))
    )
    assert len(plain) == len(losses) == 2
    for a, b in zip(plain, losses, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(state, own)
    assert all(not p.requires_grad for p in runner.model.image_head.parameters())


@every_head
def test_trains_and_predicts(head, scenes, tmp_path):
    cfg = make_config(head, scenes, tmp_path, image_head=dict(loss_weight=0.5, gate=0.5))
    require_known_keys(cfg)
    runner, record = build(cfg)
    model = runner.model
    before = copy.deepcopy(model.image_head.state_dict())
    runner.train()
    assert all('loss_tags' in losses and losses['loss_tags'] > 0 for losses in record.losses)
    assert model.image_head.num_classes == (11 if cfg.default_scope == 'mmseg' else 10)
    # a key's bias moves nothing
    still = {n for n, p in before.items() if torch.equal(p, model.image_head.state_dict()[n])}
    assert {name.rpartition('.')[2] for name in still} <= {'bias'}
    metrics = runner.val()
    assert 0 <= metrics['tags/mAP'] <= 100
    assert 0 <= metrics['localisation/pointing'] <= 100
    assert 0 < metrics['localisation/mask_IoU'] <= 100


@pytest.mark.parametrize('change', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize('head', ['mask-rcnn', 'upernet'])
def test_models_are_copied_and_pickled(head, change, scenes, tmp_path):
    model = build(make_config(head, scenes, tmp_path, image_head={}))[0].model.eval()
    copied = change(model)
    assert type(copied) is type(model) and not copied.training
    x = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        for first, second in zip(model.extract_feat(x), copied.extract_feat(x), strict=True):
            assert second.equal(first)
        last = model.backbone(x)[-1]
        assert copied.image_head(last).logits.equal(model.image_head(last).logits)


@pytest.mark.parametrize('head', ['mask-rcnn', 'upernet'])
def test_tags_alone(head, scenes, tmp_path):
    cfg = make_config(head, scenes, tmp_path)
    cfg.model = dict(
        type='attnpool_backbones.ImageTagger',
        backbone=cfg.model.backbone,
        data_preprocessor=cfg.model.data_preprocessor,
        image_head=dict(num_classes=11 if head == 'upernet' else 10),
    )
    require_known_keys(cfg)
    runner, record = build(cfg)
    runner.train()
    assert all(losses['loss'] == losses['loss_tags'] > 0 for losses in record.losses)
    assert 0 < runner.val()['localisation/mask_IoU'] <= 100


@pytest.mark.parametrize(
    ('image_head', 'message'),
    [({}, 'num_classes'), (dict(num_classes=3, gate=1), 'gate 0'),
     (dict(num_classes=3, loss_weight=0), 'above 0')],
)  # fmt: skip
def test_a_tagger_has_nothing_but_its_head(image_head, message):
    backbone = dict(type='attnpool_backbones.PatchConvNet', arch='nano')
    with pytest.raises(ValueError, match=message):
        MODELS.build(
            dict(type='attnpool_backbones.ImageTagger', backbone=backbone, image_head=image_head)
        )


def test_a_segmentor_with_attention_pools_trains(scenes, tmp_path):
    cfg = make_config('upernet', scenes, tmp_path, image_head={})
    cfg.model.decode_head.update(
        type='attnpool_backbones.WithAttentionPools', base='UPerHead', pool_heads=4
    )
    require_known_keys(cfg)
    runner, record = build(cfg)
    runner.train()
    assert len(record.losses) == 2
    queries = [p for n, p in runner.model.decode_head.named_parameters() if n.endswith('query')]
    assert len(queries) == 4 and all(query.any() for query in queries)  # from 0 on


def batch_of(runner):
    return next(iter(runner.val_dataloader))


@pytest.mark.parametrize('head', ['mask-rcnn', 'upernet'])
def test_maps_lie_on_the_image(head, scenes, tmp_path):
    runner, _ = build(make_config(head, scenes, tmp_path, image_head={}))
    model = runner.model.eval()
    for sample in model.val_step(batch_of(runner)):
        tags = sample.pred_tags
        classes = model.image_head.num_classes
        assert tags.scores.shape == (classes,) and (0 <= tags.scores).all()
        assert tags.maps.shape == (classes, SIDE // 8, SIDE // 8)
        assert tags.cell == (8, 8)  # scenes are not scaled
        torch.testing.assert_close(tags.maps.sum((1, 2)), torch.ones(classes))


@pytest.mark.parametrize('head', ['mask-rcnn', 'upernet'])
@torch.no_grad()
def test_gate_weighs_scores_by_evidence(head, scenes, tmp_path):
    runner, _ = build(make_config(head, scenes, tmp_path, image_head={}))
    model = runner.model.eval()
    if head == 'mask-rcnn':
        model.roi_head.test_cfg.score_thr = 0.0
    batch = batch_of(runner)
    plain = [copy.deepcopy(sample) for sample in model.val_step(copy.deepcopy(batch))]
    model.image_head.gate = 2.0
    for before, after in zip(plain, model.val_step(batch), strict=True):
        evidence = before.pred_tags.scores**2
        if head == 'upernet':
            expected = before.seg_logits.data + evidence.log()[:, None, None]
            torch.testing.assert_close(after.seg_logits.data, expected, atol=1e-4, rtol=1e-4)
            continue
        instances = before.pred_instances
        expected = (instances.scores * evidence[instances.labels]).sort(descending=True)
        torch.testing.assert_close(after.pred_instances.scores, expected.values)
        assert torch.equal(after.pred_instances.labels, instances.labels[expected.indices])
        assert torch.equal(after.pred_instances.masks, instances.masks[expected.indices])


@torch.no_grad()
def test_gate_weighs_votes_of_masks():
    """MaskFormer's head predicts no logits: sums of products of probabilities."""
    cfg = Config.fromfile(
        shipped('mmseg') / 'configs/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py'
    )
    cfg.model.decode_head.transformer_decoder.num_layers = 1
    cfg.model.backbone = dict(
        type='attnpool_backbones.AttnResNet', arch=dict(depths=(1, 1, 1, 1), attention='sge')
    )
    cfg.model.update(
        type='attnpool_backbones.WithImageHead', base=cfg.model.type, image_head=dict(gate=0.5)
    )
    model = build_config_model(cfg).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    metas = [dict.fromkeys(('ori_shape', 'img_shape'), (SIDE, SIDE)) for _ in images]
    gated = model.inference(images, metas)
    evidence = model.found[0].sigmoid().sqrt()
    model.image_head.gate = 0
    plain = model.inference(images, metas)
    assert plain.min() >= 0 and not torch.equal(gated, plain)
    torch.testing.assert_close(gated, plain * evidence[..., None, None])


def test_padding_is_not_seen(scenes, tmp_path):
    runner, _ = build(make_config('mask-rcnn', scenes, tmp_path, image_head={}))
    model = runner.model.eval()
    maps = torch.randn(2, 128, 8, 8)
    logits, found = model.classify(maps, [(64, 64), (40, 61)], (64, 64))
    alone, own = model.image_head(maps[1:, :, :5], return_maps=True)
    torch.testing.assert_close(logits[1:], alone)
    torch.testing.assert_close(found[1], own[0])
    assert [one.shape[-2:] for one in found] == [(8, 8), (5, 8)]


def test_sliding_windows(scenes, tmp_path):
    runner, _ = build(make_config('upernet', scenes, tmp_path, image_head={}))
    model = runner.model.eval()
    (whole,) = model.val_step({k: v[:1] for k, v in batch_of(runner).items()})
    model.test_cfg = Config(dict(mode='slide', crop_size=(SIDE, SIDE), stride=(32, 32)))._cfg_dict
    (one,) = model.val_step({k: v[:1] for k, v in batch_of(runner).items()})
    torch.testing.assert_close(one.pred_tags.scores, whole.pred_tags.scores)
    torch.testing.assert_close(one.pred_tags.maps, whole.pred_tags.maps)
    model.test_cfg.crop_size = (32, 32)
    model.test_cfg.stride = (16, 32)  # 3 x 2 windows
    (many,) = model.val_step({k: v[:1] for k, v in batch_of(runner).items()})
    assert many.pred_tags.maps.shape == whole.pred_tags.maps.shape
    torch.testing.assert_close(many.pred_tags.maps.sum((1, 2)), torch.ones(11))


def test_stitching():
    logits = torch.tensor([[[0.0, 9.0]], [[4.0, -9.0]]])  # 2 windows, 1 image, 2 classes
    maps = [torch.full((1, 2, 2, 2), 0.25), torch.full((1, 2, 2, 2), 0.25)]
    found, canvas = stitched(logits, maps, [(0, 0), (0, 16)], (8, 8), (16, 32))
    assert found.tolist() == [[4.0, 9.0]]
    assert canvas.shape == (1, 2, 2, 4)
    left, right = canvas[0, :, :, :2].sum((1, 2)), canvas[0, :, :, 2:].sum((1, 2))
    torch.testing.assert_close(left + right, torch.ones(2))
    assert left[0] < right[0] and left[1] > 0.999


def test_stitched_maps_keep_their_signs():
    logits = torch.tensor([0.9, *[0.1] * 11]).logit()[:, None, None]  # 12 windows
    maps = [torch.full((1, 1, 2, 2), mean) for mean in (2.4, *[-2.0] * 11)]
    _, canvas = stitched(logits, maps, [(0, 16 * n) for n in range(12)], (8, 8), (16, 192))
    assert (canvas[..., :2] > 0).all() and (canvas[..., 2:] < 0).all()
    torch.testing.assert_close(canvas.abs().sum(), torch.tensor(1.0))


class LossesAfterTheMap(DetectorWithImageHead, BackboneAlone):
    """Says in which order the head and the main losses have the last map."""

    main_heads = ()

    def classify(self, *args, **kwargs):
        self.order = ['head']
        return super().classify(*args, **kwargs)

    def extract_feat(self, inputs):
        maps = super().extract_feat(inputs)
        self.order = [*getattr(self, 'order', []), 'main']
        return maps


def test_head_has_the_map_before_the_main_losses():
    """In the backward pass the main gradient is then there first, and its layout stays."""
    backbone = dict(type='attnpool_backbones.AttnResNet', arch='resnet_nano')
    model = LossesAfterTheMap(image_head=dict(num_classes=3), backbone=backbone).train()
    samples = [dict(gt_instances=dict(labels=torch.tensor([label]))) for label in (0, 2)]
    losses = model.loss(torch.randn(2, 3, 64, 64), samples)
    assert model.order == ['head', 'main'] and losses['loss_tags'] > 0
    assert model.take_last_map is None


def test_true_tags():
    instances = dict(labels=torch.tensor([3, 1, 3]))
    ignored = dict(labels=torch.tensor([1, 4]))
    sample = dict(gt_instances=instances, ignored_instances=ignored)
    assert true_tags(sample, 5).tolist() == [0, 1, 0, 1, -1]
    label_map = torch.tensor([[[0, 2], [255, 2]]])
    assert true_tags(dict(gt_sem_seg=dict(data=label_map)), 4).tolist() == [1, 0, 1, 0]
    for ignored in (-1, 3):
        label_map[label_map == 255] = ignored
        found = true_tags(dict(gt_sem_seg=dict(data=label_map)), 4, ignored)
        assert found.tolist() == [1, 0, 1, 0]
        label_map[label_map == ignored] = 255
    with pytest.raises(KeyError, match='LoadAnnotations'):
        true_tags({}, 3)


@pytest.mark.parametrize('is_cascade', [False, True])
def test_tags_leave_out_what_the_head_ignores(is_cascade):
    head = nn.Identity()
    head.ignore_index = 2
    model = SegmentorWithImageHead.__new__(SegmentorWithImageHead)
    model.image_head = SimpleNamespace(num_classes=4)
    model.decode_head = nn.ModuleList([nn.Identity(), head]) if is_cascade else head
    sample = dict(gt_sem_seg=dict(data=torch.tensor([[[0, 2], [3, 2]]])))
    assert model.true_tags(sample).tolist() == [1, 0, 0, 1]


def test_flipped_views_are_flipped_back():
    maps = torch.arange(6.0).view(1, 2, 3)
    tags = make_tags(torch.zeros(1), maps, (8, 8), 'horizontal')
    assert torch.equal(tags.maps, maps.flip(2)) and tags.scores == 0.5


def test_views_are_averaged():
    maps = torch.rand(2, 4, 6)
    first = make_tags(torch.zeros(2), maps, (8, 8))
    flipped = make_tags(torch.full((2,), 9.0), maps.flip(2), (8, 8), 'horizontal')
    merged = merge_tags([first, flipped])
    torch.testing.assert_close(merged.maps, maps)
    torch.testing.assert_close(merged.scores, (first.scores + flipped.scores) / 2)
    # twice as many positions of half the size, whose sum is four times as large
    fine = make_tags(torch.zeros(2), maps.repeat_interleave(2, 1).repeat_interleave(2, 2), (4, 4))
    merged = merge_tags([first, fine])
    torch.testing.assert_close(merged.maps, maps)
    assert merged.cell == (8, 8)
    # the other view's extent is one row longer
    longer = make_tags(torch.zeros(2), torch.cat([maps, torch.zeros(2, 1, 6)], 1), (8, 8))
    torch.testing.assert_close(merge_tags([first, longer]).maps, maps)


@pytest.mark.parametrize('head', ['mask-rcnn', 'upernet'])
@torch.no_grad()
def test_time_augmentation_averages_the_tags_of_all_views(head, scenes, tmp_path):
    runner, _ = build(make_config(head, scenes, tmp_path, image_head={}))
    model, batch = runner.model.eval(), batch_of(runner)
    views = []
    for flip in (None, 'horizontal'):
        view = copy.deepcopy(batch)
        for index, sample in enumerate(view['data_samples']):
            sample.set_metainfo(dict(flip=bool(flip), flip_direction=flip, img_path=''))
            if flip:
                view['inputs'][index] = view['inputs'][index].flip(2)
        views.append(view)
    name, options = 'SemanticTTAModel', {}
    if head == 'mask-rcnn':
        tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
        name, options = 'InstanceTTAModel', dict(tta_cfg=tta_cfg)
    wrapped = MODELS.build(dict(type=f'attnpool_backbones.{name}', module=model, **options))
    alone = [model.test_step(copy.deepcopy(view)) for view in views]
    data = {key: [view[key] for view in views] for key in batch}
    for index, merged in enumerate(wrapped.test_step(data)):
        own = [view[index].pred_tags for view in alone]
        torch.testing.assert_close(merged.pred_tags.scores, (own[0].scores + own[1].scores) / 2)
        torch.testing.assert_close(merged.pred_tags.maps, (own[0].maps + own[1].maps) / 2)


def test_gradients_of_unknown_classes():
    head = MODELS.build(
        dict(type='attnpool_backbones.ImageTagHead', in_channels=300, num_classes=3)
    )
    assert head.reduce.out_channels == 256
    logits = torch.zeros(1, 3, requires_grad=True)
    loss = head.loss(logits, torch.tensor([[1, 0, -1]]))
    loss.backward()
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)
    assert logits.grad.tolist() == [[-0.25, 0.25, 0]]
    assert head.loss(logits, torch.tensor([[-1, -1, -1]])) == 0


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(base='mmdet.Nonsense'), KeyError, "base='mmdet.Nonsense' .* no registered model"),
        (dict(base='attnpool_backbones.PatchConvNet'), TypeError, 'neither a detector'),
        (dict(base='mmdet.SemiBaseDetector'), TypeError, 'more than running a backbone'),
    ],
)
def test_what_cannot_have_a_head(options, error, message):
    import mmdet.models  # noqa: F401  registers them

    with pytest.raises(error, match=message):
        MODELS.build(dict(type='attnpool_backbones.WithImageHead', **options))


@pytest.mark.parametrize('name', ['loss_weight', 'gate'])
def test_negative_weights_are_refused(name):
    config = dict(type='attnpool_backbones.ImageTagHead', in_channels=8, num_classes=3)
    with pytest.raises(ValueError, match=f'{name} of ImageTagHead is -1'):
        MODELS.build({**config, name: -1})


def test_misspelt_keys_of_the_base_are_found(scenes, tmp_path):
    from attnpool_backbones.command_line import UserError

    cfg = make_config('mask-rcnn', scenes, tmp_path, image_head=dict(los_weight=1))
    cfg.model.bakbone = cfg.model.backbone
    with pytest.raises(UserError) as caught:
        require_known_keys(cfg)
    assert 'backbone' in str(caught.value)
