"""Every segmentor can be tested at one scale, at several, whole and in windows.

Also at sides that are multiples of 32; those of ADE20K with flips, too.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint
from PIL import Image

pytest.importorskip('mmseg')

from attnpool_backbones.datasets.records import ADE20K, DIGIT_SCENES
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.registry import MODELS
from tests.configs.test_configs import CONFIGS, ROOT
from tests.mean_iou import mean_iou

SEGMENTORS = [config for config in CONFIGS if config.segments]
SMALL = 'poolformer/semantic-fpn_poolformer-s12_8xb4-40k_ade20k-512x512.py'
BASES = {ADE20K.suffix: 'ade20k_512x512_multiple', DIGIT_SCENES.suffix: 'digit_scenes_semantic'}
"""The data of a config with ``MULTIPLE``."""
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# what docs/data.md tells to append to the command
MULTIPLE = ['test_dataloader.dataset.pipeline.2.size_divisor=32',
            'tta_pipeline.1.transforms.1.0.size_divisor=32']  # fmt: skip
SLIDE = ['model.test_cfg.mode=slide', 'model.test_cfg.crop_size=(512,512)',
         'model.test_cfg.stride=(341,341)']  # fmt: skip


@pytest.fixture(scope='module')
def ade(tmp_path_factory):
    """A folder with ``data/ade`` in ADE20K's layout, one image a split."""
    root = tmp_path_factory.mktemp('ade')
    generator = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind, shape, high, name in (
            ('images', (75, 100, 3), 256, 'a.jpg'),
            ('annotations', (75, 100), 151, 'a.png'),
        ):
            folder = root / 'data' / 'ade' / 'ADEChallengeData2016' / kind / split
            folder.mkdir(parents=True)
            pixels = generator.integers(high, size=shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
    return root


def views(pipeline: list, image: Path) -> list[tuple[torch.Tensor, object]]:
    """Returns inputs and data sample of every view that a test pipeline makes of an image."""
    import mmseg.datasets  # noqa: F401  registers the transforms
    from mmengine.dataset import Compose

    label_map = str(image).replace('images', 'annotations').replace('.jpg', '.png')
    with DefaultScope.overwrite_default_scope('mmseg'):
        packed = Compose(pipeline)(
            dict(img_path=str(image), seg_map_path=label_map, seg_fields=[], reduce_zero_label=True)
        )
    if isinstance(packed['inputs'], torch.Tensor):
        return [(packed['inputs'], packed['data_samples'])]
    return list(zip(packed['inputs'], packed['data_samples'], strict=True))


def test_there_are_configs():
    assert {config.data_set.suffix for config in SEGMENTORS} == set(BASES)
    assert len(SEGMENTORS) > 40


@pytest.mark.parametrize('config', SEGMENTORS, ids=lambda config: config.path[:-3])
def test_settings(config):
    cfg = Config.fromfile(ROOT / config.path)
    assert cfg.model.test_cfg.mode == 'whole' and cfg.tta_model.type == 'SegTTAModel'
    # zeros at the border would reach the norms and the pooled features of the whole image
    assert not {'test_cfg', 'size_divisor'} & set(cfg.model.data_preprocessor)
    assert cfg.test_dataloader == cfg.val_dataloader
    base = Config.fromfile(ROOT / '_base_' / 'datasets' / f'{BASES[config.data_set.suffix]}.py')
    base.test_pipeline[2].size_divisor = 32
    base.tta_pipeline[1].transforms[1][0].size_divisor = 32
    cfg.merge_from_dict({key: 32 for key in (option.partition('=')[0] for option in MULTIPLE)})
    assert cfg.test_dataloader.dataset.pipeline == base.test_pipeline
    assert cfg.tta_pipeline == base.tta_pipeline
    assert base.test_pipeline[2].type == 'ResizeToMultiple'
    assert base.tta_pipeline[1].transforms[1][0].type == 'ResizeToMultiple'


def divisors(pipeline: list) -> set[int]:
    """Returns what a test pipeline rounds the sides of images up to."""
    several = [steps for step in pipeline for steps in step.get('transforms', ())]
    steps = [step for steps in (pipeline, *several) for step in steps]
    return {step.size_divisor for step in steps if step.type == 'ResizeToMultiple'}


@pytest.mark.parametrize('config', SEGMENTORS, ids=lambda config: config.path[:-3])
def test_enlarged_maps_cover_the_image_alone(config):
    cfg = Config.fromfile(ROOT / config.path)
    necks = cfg.model.get('neck') or []
    for neck in [necks] if isinstance(necks, dict) else necks:
        if not neck.get('type', '').endswith('ScalePyramid'):
            continue
        pyramid = MODELS.build(neck)
        if pyramid.out_strides[0] < pyramid.in_stride:
            for pipeline in (cfg.val_dataloader.dataset.pipeline, cfg.tta_pipeline):
                (divisor,) = divisors(pipeline)
                assert divisor % pyramid.in_stride == 0


@pytest.mark.parametrize(
    ('file', 'divisor', 'side', 'flips'),
    [
        ('ade20k_512x512', 1, 512, True),
        ('ade20k_512x512_multiple', 32, 512, True),
        ('ade20k_512x512_multiple-16', 16, 512, True),
        # a mirrored digit is none
        ('digit_scenes_semantic', 1, 75, False),
    ],
)
def test_pipelines(file, divisor, side, flips, ade):
    cfg = Config.fromfile(ROOT / '_base_' / 'datasets' / f'{file}.py')
    image = ade / 'data/ade/ADEChallengeData2016/images/validation/a.jpg'

    def rounded(side: float) -> int:
        return -(-int(side + 0.5) // divisor) * divisor

    ((single, sample),) = views(cfg.test_pipeline, image)
    assert single.shape == (3, rounded(side), rounded(side * 4 / 3))
    # the ground truth keeps its size: the metric is that of the image, not of the network's input
    assert sample.gt_sem_seg.data.shape == (1, 75, 100)

    several = views(cfg.tta_pipeline, image)
    mirrored = [bool(sample.get('flip')) for _, sample in several].count(True)
    assert mirrored == (len(SCALES) if flips else 0)
    sizes = [tuple(inputs.shape[1:]) for inputs, _ in several]
    expected = {(rounded(side * s), rounded(side * s * 4 / 3)) for s in SCALES}
    assert len(sizes) == len(SCALES) + mirrored and set(sizes) == expected


@pytest.fixture(scope='module')
def checkpoint(ade):
    model = build_config_model(Config.fromfile(ROOT / SMALL))
    save_checkpoint(dict(state_dict=model.state_dict(), meta={}), str(ade / 'random.pth'))
    return ade / 'random.pth'


@pytest.mark.parametrize('way', ['single', 'multiple', 'slide', 'tta'])
def test_through_the_tool(
    way,
    ade,
    checkpoint,
    repo_root,
    tmp_path,
    monkeypatch,
):
    spec = importlib.util.spec_from_file_location('tools_test', repo_root / 'tools' / 'test.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    options = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    # small enough for a second on a CPU
    options.append('test_dataloader.dataset.pipeline.1.scale=(256,64)')
    options += [
        f'tta_pipeline.1.transforms.0.{i}.scale=({int(256 * s)},{int(64 * s)})'
        for i, s in enumerate(SCALES)
    ]
    options += dict(
        single=[],
        multiple=MULTIPLE,
        slide=[option.replace('512', '64').replace('341', '32') for option in SLIDE],
        tta=MULTIPLE,
    )[way]
    monkeypatch.chdir(ade)
    arguments = [str(ROOT / SMALL), str(checkpoint), '--work-dir', str(tmp_path / 'run')]
    arguments += ['--out', str(tmp_path / 'maps')]
    flags = ['--tta'] if way == 'tta' else []
    monkeypatch.setattr(sys, 'argv', ['test.py', *arguments, *flags, '--cfg-options', *options])
    tool.main()
    (metrics,) = (tmp_path / 'run').glob('*/*.json')
    truth = ade / 'data/ade/ADEChallengeData2016/annotations/validation'
    expected = mean_iou(tmp_path / 'maps', truth, range(1, 151), ignored=0)
    assert json.loads(metrics.read_text())['mIoU'] == pytest.approx(expected, abs=0.006)
