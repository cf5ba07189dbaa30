"""Under any tool that runs our configs, pipelines begin with a look at what they load."""

from types import SimpleNamespace

import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, ConcatDataset

from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.limits import MAX_PIXELS, InputLimits
from attnpool_backbones.engine.bad_data_hook import SkipBadDataHook, SkippingPipeline
from attnpool_backbones.engine.input_limits_hook import InputLimitsHook, depth_of


def dataset(*steps: object) -> BaseDataset:
    return BaseDataset(lazy_init=True, pipeline=list(steps))


def runner(whole: object, **cfg: object) -> SimpleNamespace:
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=whole))
    return SimpleNamespace(train_loop=loop, val_loop=loop, test_loop=loop, cfg=Config(cfg))


@pytest.mark.parametrize('name', ['before_train', 'before_val', 'before_test'])
@pytest.mark.parametrize(('setting', 'limit'), [({}, MAX_PIXELS), ({'max_pixels': 99}, 99)])
def test_every_pipeline_begins_with_it(name, setting, limit):
    inner = [dataset(LoadImageFromFile()), dataset(LoadImageFromFile())]
    inner[1].pipeline = SkippingPipeline(inner[1].pipeline, None, True, 3)
    hook = InputLimitsHook()
    for _ in range(2):  # the second time changes nothing
        getattr(hook, name)(runner(ConcatDataset(inner, lazy_init=True), **setting))
    for each in inner:
        first, second = each.pipeline.transforms
        assert isinstance(first, InputLimits) and first.max_pixels == limit
        assert isinstance(second, LoadImageFromFile)


@pytest.mark.parametrize('skipping', [False, True])
def test_a_pipeline_that_was_put_there_later_begins_with_it(skipping):
    whole = dataset(LoadImageFromFile())
    hooks = [InputLimitsHook(), *([SkipBadDataHook()] if skipping else [])]
    training = runner(whole)
    training.train_loop.dataloader.collate_fn = list
    for hook in hooks:
        hook.before_train(training)
    whole.pipeline = Compose([LoadImageFromFile()])  # as mmdet's PipelineSwitchHook does
    for hook in [*hooks, *hooks]:  # the second time changes nothing
        hook.before_loading(training, number=7)
    assert isinstance(whole.pipeline, SkippingPipeline) is skipping
    first, second = whole.pipeline.transforms
    assert isinstance(first, InputLimits) and isinstance(second, LoadImageFromFile)


def test_an_own_limit_stays():
    whole = dataset(InputLimits(7), LoadImageFromFile())
    InputLimitsHook(5).before_test(runner(whole))
    assert [step.max_pixels for step in whole.pipeline.transforms[:1]] == [7]
    assert len(whole.pipeline.transforms) == 2


@pytest.mark.parametrize(
    ('loader', 'depth'),
    [
        (dict(), 'scaled'),
        (dict(imdecode_backend='pillow'), 'cut'),
        (dict(color_type='unchanged'), 'kept'),
        (None, 'kept'),
    ],
)
def test_what_the_loader_does_with_16_bits(loader, depth):
    steps = [] if loader is None else [LoadImageFromFile(**loader)]
    assert depth_of(Compose(steps).transforms) == depth


def test_our_configs_have_the_hook():
    runtimes = 0
    for file in sorted((config_root() / '_base_').rglob('*.py')):
        text = file.read_text()
        if 'attnpool_backbones.LoadGuardHook' in text:
            hooks = [hook.type for hook in Config.fromstring(text, '.py').custom_hooks]
            assert 'attnpool_backbones.InputLimitsHook' in hooks, file
            runtimes += 1
    assert runtimes >= 5
