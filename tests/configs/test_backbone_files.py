"""``configs/_base_/backbones``: what each file states is what its backbone does.

A file states what a model says about its backbone, by the head that reads the maps.
"""

import re
import statistics
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from attnpool_backbones.config_files import config_root
from attnpool_backbones.zoo.config_names import list_configs

ROOT = config_root()
FILES = sorted((ROOT / '_base_' / 'backbones').glob('*.py'))
CONFIGS = [ROOT / config.path for config in list_configs(ROOT)]
FULL = {
    'rcnn': 'mask-rcnn_fpn',
    'retinanet': 'retinanet_fpn',
    'semantic_fpn': 'semantic-fpn',
    'upernet': 'upernet',
}
"""Head -> a model that has it, of the full sizes and of the nano ones."""
NANO = {'rcnn': 'mask-rcnn_slim-fpn', 'upernet': 'upernet_slim'}


def heads_of(file: Path) -> dict[str, str]:
    return NANO if file.stem.endswith('-nano') else FULL


def maps_of(config: dict, scope: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns channels and strides of the maps of a backbone."""
    config = {key: value for key, value in config.items() if key != 'init_cfg'}
    # Swin's constructor reads values, which the meta device does not have
    device = 'cpu' if config['type'] == 'SwinTransformer' else 'meta'
    with DefaultScope.overwrite_default_scope(scope), torch.device(device):
        backbone = MODELS.build(config)
        backbone.eval()
        if hasattr(backbone, 'out_channels'):
            return backbone.out_channels, backbone.out_strides
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, 64, 64))
    return tuple(m.shape[1] for m in maps), tuple(64 // m.shape[-1] for m in maps)


def stated_maps(model: dict, channels: tuple[int, ...], strides: tuple[int, ...]) -> list:
    """Follows the maps through the neck that a file states.

    Returns:
        What the last stated part reads, channels and strides.
    """
    necks = model.get('neck', [])
    necks = necks if isinstance(necks, list) else [necks]
    for neck in necks:
        if neck.get('type') == 'attnpool_backbones.ScalePyramid':
            assert set(channels) == {neck['in_channels']}
            assert set(strides) == {neck.get('in_stride', 16)}
            strides = tuple(neck.get('out_strides', (4, 8, 16, 32)))
            assert len(channels) == len(strides)
        else:
            assert neck['in_channels'] == list(channels)
    if 'decode_head' in model:
        assert model['decode_head']['in_channels'] == list(channels)
    if 'auxiliary_head' in model:
        assert model['auxiliary_head']['in_channels'] == channels[2]
    return [channels, strides]


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_channels_and_strides_are_those_of_the_backbone(file):
    content = Config.fromfile(file, lazy_import=False).to_dict()
    assert set(content) == {'under'} and set(content['under']) == set(heads_of(file))
    for head, model in content['under'].items():
        scope = 'mmseg' if head in ('semantic_fpn', 'upernet') else 'mmdet'
        _, strides = stated_maps(model, *maps_of(model['backbone'], scope))
        finest = 8 if head == 'retinanet' or file.stem.endswith('-nano') else 4
        expected = (finest, 16) if file.stem.endswith('-nano') else (4, 8, 16, 32)
        assert strides == tuple(stride for stride in expected if stride >= finest), head


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_every_head_takes_it(file, tmp_path):
    """A user's config puts any backbone under any head by its bases and a line or two."""
    for head, model in heads_of(file).items():
        bases = [f'{ROOT}/_base_/backbones/{file.name}', f'{ROOT}/_base_/models/{model}.py']
        config = tmp_path / f'{head}.py'
        config.write_text(f"_base_ = {bases}\nmodel = _base_.pop('under').{head}\n")
        cfg = Config.fromfile(config)
        neck = cfg.model.get('neck')
        if isinstance(neck, list):
            config.write_text(config.read_text() + 'model.neck[1].update(_base_.model.neck)\n')
            neck = Config.fromfile(config).model.neck[-1]
        assert 'under' not in cfg and cfg.model.type and cfg.model.backbone.type
        if head != 'upernet':
            assert neck.type == 'FPN' and neck.num_outs


def test_a_wrong_statement_is_noticed():
    deepvit = Config.fromfile(ROOT / '_base_/backbones/deepvit-nano.py', lazy_import=False).under
    maps = maps_of(deepvit.rcnn.backbone, 'mmdet')
    stated_maps(deepvit.rcnn, *maps)
    deepvit.rcnn.neck[1].in_channels = [64, 128]
    deepvit.upernet.neck.in_channels = 64
    for wrong in (deepvit.rcnn, deepvit.upernet):
        with pytest.raises(AssertionError):
            stated_maps(wrong, *maps)


def test_configs_are_their_bases_and_a_few_lines():
    lengths = [len(path.read_text().splitlines()) for path in CONFIGS]
    assert statistics.median(lengths) <= 8 and max(lengths) <= 13
    for path in CONFIGS:
        text = path.read_text()
        bases = re.findall(r"'([^']+\.py)'", text)
        kinds = [base.split('/')[2] for base in bases if base.startswith('../_base_/')]
        # no config is the base of another
        assert len(kinds) == len(bases) == 5, path
        assert kinds[:4] == ['backbones', 'models', 'datasets', 'schedules'], path
        assert re.fullmatch(r'(default|digit-scenes)_runtime_(det|seg)\.py', kinds[4]), path
        assert not re.search(r'in_channels|ScalePyramid|type=.Pretrained', text), path


def test_classifiers_are_their_bases_and_a_few_lines():
    paths = sorted((ROOT / 'classification').glob('*.py'))
    assert len(paths) >= 16
    for path in paths:
        text = path.read_text()
        assert len(text.splitlines()) <= 13, path
        kinds = [base.split('/')[2] for base in re.findall(r"'(\.\./_base_/[^']+\.py)'", text)]
        assert kinds == ['models', 'datasets', 'schedules', 'default_runtime_cls.py'], path
