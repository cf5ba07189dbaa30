"""The nano configs train and evaluate on digit scenes through the real Runner."""

import pytest
import torch

from attnpool_backbones.backbones import DeepViT
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.launch import build_runner
from attnpool_backbones.launching.outputs import write_label_maps
from attnpool_backbones.launching.tta import enable_tta
from tests.configs.ablations import ABLATIONS
from tests.mean_iou import mean_iou

CONFIGS = sorted(config_root().glob('*/*_digit-scenes.py'))


def short_config(config, scenes, work_dir, epochs=1):
    """Returns a config for epochs of two iterations of batch 4 on eight scenes, in this process."""
    options = {f'{s}_dataloader.dataset.data_root': str(scenes) for s in ('train', 'val', 'test')}
    for split in ('train', 'val', 'test'):
        options |= {
            f'{split}_dataloader.batch_size': 4,
            f'{split}_dataloader.num_workers': 0,
            f'{split}_dataloader.persistent_workers': False,
        }
    cfg = load_config(str(config), options, str(work_dir))
    if cfg.default_scope == 'mmdet':
        cfg.val_evaluator.ann_file = str(scenes / 'annotations/instances_val.json')
        cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
        # Two iterations may leave no score above the threshold, and then there is no metric.
        cfg.model.test_cfg.rcnn.score_thr = 0.0
    else:
        cfg.train_cfg.update(max_iters=2 * epochs, val_interval=2 * epochs)
    cfg.param_scheduler = None
    cfg.randomness = dict(seed=0)
    return cfg


@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_trains_and_evaluates(config, scenes, tmp_path):
    runner = build_runner(short_config(config, scenes, tmp_path))
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2
    changed = [n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])]
    assert any(name.startswith('backbone.') for name in changed)
    metrics = {
        name: value.current()
        for name, value in runner.message_hub.log_scalars.items()
        if name.startswith('val/')
    }
    expected = {'mmdet': {'val/coco/bbox_mAP', 'val/coco/segm_mAP'}, 'mmseg': {'val/mIoU'}}
    assert expected[runner.cfg.default_scope] <= set(metrics)
    assert (tmp_path / 'last_checkpoint').exists()


def dense_cases():
    """Returns config and variant of every ablation in both tasks; two are not slow."""
    fast = {('upernet', 'nano_attention'), ('mask-rcnn', 'nano_after')}
    for config in CONFIGS:
        head, _, rest = config.stem.partition('_')
        for arch in ABLATIONS.get(rest.partition('_')[0], ()):
            if arch != 'nano_vit_rel':  # a column, with a base of its own
                marks = [] if (head, arch) in fast else [pytest.mark.slow]
                yield pytest.param(config, arch, id=f'{head}-{arch}', marks=marks)


@pytest.mark.parametrize(('config', 'arch'), dense_cases())
def test_ablations_train(config, arch, scenes, tmp_path):
    cfg = short_config(config, scenes, tmp_path)
    cfg.model.backbone.arch = arch
    if cfg.model.backbone.type.endswith('DeepViT'):
        built = DeepViT.archs[arch]
        cfg.model.backbone.out_indices = (built.depth // 2, built.depth - 1)
        widen(cfg.model, built.width)
    runner = build_runner(cfg)
    before = {name: p.detach().clone() for name, p in runner.model.backbone.named_parameters()}
    runner.train()
    assert runner.iter == 2
    trained = {n: p for n, p in runner.model.backbone.named_parameters() if p.requires_grad}
    changed = [name for name, p in trained.items() if not torch.equal(p, before[name])]
    assert len(changed) > 0.9 * len(trained)


def widen(model, width):
    """Sets the channels of what reads a column of another width."""
    if 'decode_head' in model:
        model.neck.in_channels = width
        model.decode_head.in_channels = [width] * 2
    else:
        model.neck[0].in_channels = width
        model.neck[1].in_channels = [width] * 2


@pytest.mark.parametrize(
    'config', [c for c in CONFIGS if 'patchconvnet' in c.stem], ids=lambda path: path.stem
)
def test_trains_on_scenes_of_another_size(config, tmp_path):
    generate(tmp_path / 'scenes', train=8, val=4, size=(128, 96))
    runner = build_runner(short_config(config, tmp_path / 'scenes', tmp_path / 'work'))
    runner.train()
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(losses) == 2 and all(losses > 0)


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_loss_falls(config, scenes, tmp_path):
    runner = build_runner(short_config(config, scenes, tmp_path, epochs=15))
    runner.train()
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(losses) == 30
    assert losses[-6:].mean() < 0.8 * losses[:6].mean()


def test_augments_a_segmentation_test(scenes, tmp_path):
    cfg = short_config(next(c for c in CONFIGS if 'upernet' in c.stem), scenes, tmp_path)
    cfg.experiment_name = 'tta'
    enable_tta(cfg)
    write_label_maps(cfg, str(tmp_path / 'maps'))
    (tmp_path / 'maps').mkdir()
    runner = build_runner(cfg)
    views = []
    runner.model.module.register_forward_hook(lambda module, inputs, out: views.extend(out))
    measured = runner.test()['mIoU']
    # each of the four images is seen at each scale
    assert len(views) == 4 * len(cfg.tta_pipeline[1].transforms[0])
    classes = range(len(runner.test_dataloader.dataset.metainfo['classes']))
    truth = scenes / cfg.test_dataloader.dataset.data_prefix.seg_map_path
    assert measured == pytest.approx(mean_iou(tmp_path / 'maps', truth, classes, 255), abs=0.006)


def test_there_are_two_tasks():
    scopes = {load_config(str(config)).default_scope for config in CONFIGS}
    assert scopes == {'mmdet', 'mmseg'}
