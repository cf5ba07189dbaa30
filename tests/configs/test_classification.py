"""``configs/classification``: image classifiers train and evaluate by the Runner."""

from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.engine.bad_data_hook import BadDataError
from attnpool_backbones.launching import launch
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_keys import require_known_keys
from attnpool_backbones.launching.data_check import build_loops
from attnpool_backbones.launching.launch import build_runner
from attnpool_backbones.launching.safeguards import add_safeguards
from attnpool_backbones.registry import MODELS
from attnpool_backbones.zoo.complexity import count_parameters
from tests.configs.ablations import ABLATIONS
from tests.launching.tiny_scenes import arguments

FOLDER = config_root() / 'classification'
CONFIGS = sorted(FOLDER.glob('*.py'))
DIGITS = [path for path in CONFIGS if path.stem.endswith('_digit-crops')]
IMAGENET = [path for path in CONFIGS if path.stem.endswith('_in1k')]
FAST = ('resnet-nano-attnpool_digit-crops', 'resnet-nano_digit-crops')
"""Same recipe, another pooling."""


def short_config(config, work_dir, data_root, batch=8, **options):
    """Returns a config for one epoch, in this process."""
    options = {f'model.backbone.{key}': value for key, value in options.items()}
    for split in ('train', 'val', 'test'):
        options[f'{split}_dataloader.dataset.data_root'] = str(data_root)
        options[f'{split}_dataloader.batch_size'] = batch
        options[f'{split}_dataloader.num_workers'] = 0
        options[f'{split}_dataloader.persistent_workers'] = False
    cfg = load_config(str(config), options, str(work_dir))
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = None
    cfg.randomness = dict(seed=0)
    return cfg


def train(cfg):
    """Trains, and returns the Runner and its metrics."""
    runner = build_runner(cfg)
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter >= 2
    changed = [n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])]
    assert any(name.startswith('backbone.') for name in changed)
    metrics = {
        name.removeprefix('val/'): value.current()
        for name, value in runner.message_hub.log_scalars.items()
        if name.startswith('val/accuracy')
    }
    return runner, metrics


def plain_accuracy(runner):
    """Percent of the validation crops whose label has the highest logit, one crop at a time."""
    model = runner.model.eval()
    hits = []
    with torch.no_grad():
        for batch in runner.val_dataloader:
            batch = model.data_preprocessor(batch)
            logits = [model(image[None])[0] for image in batch['inputs']]
            hits += [
                int(one.argmax()) == int(label)
                for one, label in zip(logits, batch['labels'], strict=True)
            ]
    assert len(hits) == len(runner.val_dataloader.dataset)
    return 100 * sum(hits) / len(hits)


@pytest.mark.parametrize(
    'config',
    [
        pytest.param(p, id=p.stem, marks=[] if p.stem in FAST else [pytest.mark.slow])
        for p in DIGITS
    ],
)
def test_trains_on_digits(config, scenes, tmp_path):
    runner, metrics = train(short_config(config, tmp_path, scenes))
    assert metrics['accuracy/top1'] == pytest.approx(plain_accuracy(runner))
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    assert {name.partition('.')[0] for name in checkpoint} == {'backbone', 'head'}
    assert runner.model.backbone.out_channels[-1] == runner.model.head.classifier.in_features


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'arch'), [(name, arch) for name, archs in ABLATIONS.items() for arch in archs]
)
def test_ablations_train_on_digits(name, arch, scenes, tmp_path):
    options = dict(arch=arch)
    cfg = short_config(FOLDER / f'{name}_digit-crops.py', tmp_path, scenes, **options)
    runner, metrics = train(cfg)
    assert metrics['accuracy/top1'] == pytest.approx(plain_accuracy(runner))


def test_poolings_have_one_recipe():
    """Average and attention pooling of a ResNet differ in the head alone."""
    for size in ('nano', '50'):
        data = 'digit-crops' if size == 'nano' else 'in1k'
        stem = f'resnet-{size}' if size == 'nano' else f'resnet{size}'
        configs = [
            Config.fromfile(FOLDER / f'{stem}{end}_{data}.py').to_dict()
            for end in ('', '-attnpool')
        ]
        heads = [config['model'].pop('head')['type'] for config in configs]
        assert heads == [
            f'attnpool_backbones.{kind}PoolingHead' for kind in ('Average', 'Attention')
        ]
        assert configs[0] == configs[1]


def test_batches_of_eight_gpus_are_those_that_the_rate_is_for():
    """The recipes of digit crops are for one process and have no such batch."""
    for path in CONFIGS:
        cfg = Config.fromfile(path)
        assert ('auto_scale_lr' in cfg) == (path in IMAGENET), path
        if path in IMAGENET:
            batch = 8 * cfg.train_dataloader.batch_size
            assert batch == cfg.auto_scale_lr.base_batch_size, path


@pytest.mark.parametrize('config', IMAGENET, ids=lambda path: path.stem)
def test_imagenet_configs_have_known_keys_and_sizes(config):
    cfg = load_config(str(config))
    require_known_keys(cfg)
    with torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        logits = model(torch.zeros(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    published = {
        'resnet50_in1k': 25_557_032,
        'sge-resnet50_in1k': 25_559_080,
        'resnet50-attnpool_in1k': 67_534_888,
        'patchconvnet-s60_in1k': 25_231_096,
        'patchconvnet-s60-multi_in1k': 25_614_712,
        'deepvit-16b_in1k': 24_426_664,
    }
    if config.stem in published:
        assert count_parameters(model) == published[config.stem]


def write_folders(root, images):
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('left', 'right'):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(images):
                image = rng.integers(0, 40, (60, 80, 3), np.uint8)
                half = slice(0, 40) if name == 'left' else slice(40, 80)
                image[:, half] += 200
                cv2.imwrite(str(folder / f'{index}.JPEG'), image)


def test_trains_on_folders(tmp_path):
    write_folders(tmp_path / 'data', images=4)
    cfg = short_config(FOLDER / 'resnet50_in1k.py', tmp_path / 'work', tmp_path / 'data', batch=4)
    cfg.model.backbone.arch = 'resnet_nano'
    cfg.model.head.num_classes = 2
    runner, metrics = train(cfg)
    assert set(metrics) == {'accuracy/top1'}  # top5 says nothing of two classes
    dataset = runner.val_dataloader.dataset
    assert dataset.metainfo['classes'] == ('left', 'right') and len(dataset) == 8
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 224, 224) and sample['inputs'].dtype == torch.uint8
    assert sample['labels'] == 0


def test_detectors_start_from_own_classifiers(tmp_path):
    """As the page of the ResNets says for units whose weights were never released."""
    write_folders(tmp_path / 'data', images=4)
    config, arch = FOLDER / 'sge-resnet50_in1k.py', 'se_resnet_nano'
    cfg = short_config(config, tmp_path / 'work', tmp_path / 'data', batch=4, arch=arch)
    cfg.model.head.num_classes = 2
    runner, _ = train(cfg)
    options = {
        'model.backbone.arch': arch,
        'model.backbone.init_cfg.checkpoint': str(tmp_path / 'work' / 'epoch_1.pth'),
    }
    detector = FOLDER.parent / 'attn_resnet' / 'retinanet_se-resnet50_fpn_2x_coco.py'
    backbone = MODELS.build(load_config(str(detector), options).model.backbone)
    backbone.init_weights()
    state, trained = backbone.state_dict(), runner.model.backbone.state_dict()
    assert all(torch.equal(value, trained[name].cpu()) for name, value in state.items())


def test_randaugment_and_erasing_are_in_the_recipe(tmp_path):
    write_folders(tmp_path / 'data', images=4)
    config, work_dir, data = FOLDER / 'poolformer-s12_in1k.py', tmp_path / 'work', tmp_path / 'data'
    cfg = short_config(config, work_dir, data, batch=4, arch='nano')
    cfg.model.head.num_classes = 2
    runner, _ = train(cfg)
    transforms = runner.train_dataloader.dataset.pipeline.transforms
    by_name = {type(transform).__name__: transform for transform in transforms}
    augment, erasing, pack = (by_name[n] for n in ('RandAugment', 'RandomApply', 'PackImage'))
    assert augment.aug_num == 2
    image = np.full((224, 224, 3), 50, np.uint8)
    erased = []
    np.random.seed(0)
    for _ in range(200):
        result = erasing(dict(img=image.copy(), img_shape=(224, 224)))['img']
        erased.append((result != image).any(-1).mean())
    shares = np.array([share for share in erased if share])
    assert 0.15 < len(shares) / 200 < 0.35 and 0.015 < shares.min() and shares.max() < 0.34
    image = np.random.randint(0, 256, image.shape, np.uint8)  # colours change it, too
    images = [pack(augment(dict(img=image.copy(), img_shape=(224, 224), gt_label=1)))
              for _ in range(20)]  # fmt: skip
    assert len({int(one['inputs'].sum()) for one in images}) > 10


def test_one_class_token_becomes_one_per_class(scenes, tmp_path, caplog):
    one = short_config(FOLDER / 'patchconvnet-nano_digit-crops.py', tmp_path / 'one', scenes)
    train(one)
    many = FOLDER / 'patchconvnet-nano-multi_digit-crops.py'
    many = short_config(many, tmp_path / 'many', scenes)
    many.load_from = str(tmp_path / 'one' / 'epoch_1.pth')
    many.optim_wrapper.optimizer.lr = 0.0
    runner, _ = train_nothing(many)
    stored = torch.load(many.load_from, weights_only=False)['state_dict']
    head = runner.model.head.cpu()
    assert torch.equal(head.pool.cls_token, stored['head.pool.cls_token'].expand(1, 10, -1))
    assert torch.equal(head.classifier.weight, stored['head.classifier.weight'])
    log = next((tmp_path / 'many').glob('*/*.log')).read_text()
    told = head.pool.training_bytes(8, 36) / 2**20
    assert f'with 10 class tokens takes about {told:.0f} MiB at the peak of a step of 8' in log


@pytest.mark.parametrize('broken', ['0', '*'])
def test_broken_images_are_named_where_class_tokens_are_told(broken, tmp_path):
    write_folders(tmp_path / 'data', images=2)
    for path in (tmp_path / 'data/train/left').glob(f'{broken}.JPEG'):
        path.write_bytes(b'no image')
    config = FOLDER / 'patchconvnet-s60-multi_in1k.py'
    cfg = short_config(config, tmp_path / 'work', tmp_path / 'data', batch=4, arch='nano')
    cfg.model.head.num_classes = 2
    cfg.custom_hooks.append(dict(type='attnpool_backbones.SkipBadDataHook', max_bad=0))
    with pytest.raises(BadDataError, match='train/left/0.JPEG'):
        build_runner(cfg).train()


def train_nothing(cfg):
    """Trains with a learning rate of 0."""
    runner = build_runner(cfg)
    runner.train()
    return runner, runner.message_hub


def test_what_classifiers_have_nothing_of_is_said(tmp_path):
    from attnpool_backbones.launching.tta import enable_tta

    cfg = load_config(str(DIGITS[0]), work_dir=str(tmp_path))
    with pytest.raises(UserError, match='--tta is for detectors and segmentors; .* classifier'):
        enable_tta(cfg)
    add_safeguards(cfg)


@pytest.mark.parametrize(
    ('folders', 'told'),
    [
        (('Cat', 'ant', 'bee'), 'label 0 is Cat in val_dataloader .* but ant in train_dataloader'),
        (('ant', 'cat'), r'label 1 is cat in val_dataloader \(2 classes\), but bee in train'),
        (('ant', 'bee', 'cat', 'dog'), 'label 3 is dog in val_dataloader .* but no class in train'),
        (('ant', 'bee', 'cat', '.ipynb_checkpoints'), None),
        (('0', '1', '2'), None),  # named after the labels, as ImageNet-V2
    ],
)
def test_a_label_is_one_class_in_all_splits(folders, told, tmp_path):
    for split, names in (('train', ('ant', 'bee', 'cat')), ('val', folders)):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / 'a.png'), np.zeros((9, 9, 3), np.uint8))
    cfg = short_config(FOLDER / 'resnet-nano_digit-crops.py', tmp_path / 'run', tmp_path, 1)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset = dict(
            type='attnpool_backbones.ClassFolders',
            data_root=str(tmp_path),
            data_prefix=dict(img=split),
        )
    with pytest.raises(UserError, match=told) if told else nullcontext():
        build_loops(build_runner(cfg), ('train', 'val'))


@pytest.mark.parametrize(
    ('folders', 'told'),
    [
        (('ant', 'bee', 'cat'), None),
        (('0', '1', '2'), None),
        (('ant', 'bee', 'dog'), 'label 2 is dog in test_dataloader .* but cat in the checkpoint'),
        (('ant', 'cat'), r'label 1 is cat in test_dataloader \(2 classes\), but bee in the check'),
    ],
)
def test_a_test_has_the_classes_of_the_training(folders, told, tmp_path):
    for split, names in (('train', ('ant', 'bee', 'cat')), ('test', folders)):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / 'a.png'), np.zeros((48, 48, 3), np.uint8))
    config = tmp_path / 'config.py'
    data = [
        f'{split}_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(_delete_'
        f"=True, type='attnpool_backbones.ClassFolders', data_root={str(tmp_path)!r}, "
        f"data_prefix=dict(img='{split}'), pipeline=pipeline))"
        for split in ('train', 'test')
    ]
    lines = [
        "pipeline = [dict(type='LoadImageFromFile'), dict(type='attnpool_backbones.PackImage')]",
        f'_base_ = {str(FOLDER / "resnet-nano_digit-crops.py")!r}',
        'model = dict(head=dict(num_classes=3))',
        'val_dataloader = val_cfg = val_evaluator = None',
        *data,
        'train_dataloader.update(batch_size=1)',
    ]
    config.write_text('\n'.join(lines))
    runner = build_runner(load_config(str(config), {}, str(tmp_path / 'run')))
    build_loops(runner, ('train',))
    parts = dict(save_optimizer=False, save_param_scheduler=False, meta=dict(epoch=0, iter=0))
    runner.save_checkpoint(runner.work_dir, 'weights.pth', **parts)
    args = arguments(config, checkpoint=f'{runner.work_dir}/weights.pth')
    with pytest.raises(UserError, match=told) if told else nullcontext():
        launch.test(args)
