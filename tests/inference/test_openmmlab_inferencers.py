"""The inferencers of mmdet and mmseg look before they load, where their config says so."""

import importlib
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from attnpool_backbones.datasets.limits import InputTooLarge

# name, its package, and what it returns for an image
INFERENCERS = {
    'detector': ('mmdet', 'DetInferencer', lambda found: found['predictions'][0]['scores']),
    'segmentor': ('mmseg', 'MMSegInferencer', lambda found: found['predictions']),
}


@pytest.mark.parametrize('run', INFERENCERS)
def test_inputs_are_limited_by_one_line_of_the_config(run, scenes, tmp_path, request):
    package, name, result_of = INFERENCERS[run]
    pytest.importorskip(package)
    folder = request.getfixturevalue(run)
    cfg = Config.fromfile(folder / 'config.py')
    # the line of SECURITY.md
    cfg.test_dataloader.dataset.pipeline.insert(
        0, dict(type='attnpool_backbones.InputLimits', max_pixels=96 * 64)
    )
    with DefaultScope.overwrite_default_scope(package):
        inferencer = getattr(importlib.import_module(f'{package}.apis'), name)(
            cfg, str(folder / 'epoch_1.pth'), device='cpu'
        )
        inferencer.show_progress = False
        image = sorted((scenes / 'images/validation').iterdir())[0]
        assert len(result_of(inferencer(str(image))))
        large, pipe = tmp_path / 'large.png', tmp_path / 'pipe.png'
        Image.new('1', (96, 65)).save(large)
        os.mkfifo(pipe)
        for path, message in ((large, '96x65 pixels'), (pipe, 'no ordinary file')):
            with pytest.raises(InputTooLarge, match=message):
                inferencer(str(path))


@pytest.mark.parametrize('places', [('meta',), ('message_hub',), ('meta', 'message_hub')])
@pytest.mark.parametrize('run', INFERENCERS)
def test_the_config_inside_of_weights_is_not_run(run, places, tmp_path, request):
    package, name, _ = INFERENCERS[run]
    pytest.importorskip(package)
    program = f'open({str(tmp_path / "executed")!r}, "w").close()'
    content = torch.load(request.getfixturevalue(run) / 'epoch_1.pth', weights_only=True)
    if 'meta' in places:
        content['meta']['cfg'] = program
    if 'message_hub' in places:
        content['message_hub'] = dict(
            log_scalars={}, runtime_info=dict(cfg=program), resumed_keys={}
        )
    torch.save(content, tmp_path / 'x.pth')
    with DefaultScope.overwrite_default_scope(package):
        inferencer = getattr(importlib.import_module(f'{package}.apis'), name)
        with pytest.raises(ValueError, match='the config inside of the weights is a program'):
            inferencer(None, str(tmp_path / 'x.pth'), device='cpu')
    assert not (tmp_path / 'executed').exists()
