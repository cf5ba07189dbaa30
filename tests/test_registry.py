"""Whatever is registered is found by its scope's name, without another import and without mmdet."""

import json
import subprocess
import sys

import pytest
from mmengine.registry import Registry

from attnpool_backbones import registry

REGISTRIES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}

LIST = """
import json, sys
from mmengine import registry as root
names = json.loads(sys.argv[1])
for registry, keys in names.items():
    for key in keys:
        assert getattr(root, registry).get('attnpool_backbones.' + key) is not None, key
print([name for name in ('mmdet', 'mmseg', 'torchvision', 'timm') if name in sys.modules])
"""


@pytest.fixture(scope='module')
def registered():
    """Names by registry."""
    for each in REGISTRIES.values():
        each.import_from_location()
    return {name: sorted(each.module_dict) for name, each in REGISTRIES.items()}


def test_no_registry_is_empty(registered):
    assert [name for name, keys in registered.items() if not keys] == []


def test_everything_is_found_by_name_alone(registered):
    assert 'InstanceTTAModel' in registered['MODELS']
    done = subprocess.run(
        [sys.executable, '-c', LIST, json.dumps(registered)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == '[]'


def test_the_model_of_tta_is_built_by_name():
    pytest.importorskip('mmdet')
    from mmdet.models import DetTTAModel
    from torch import nn

    class Detector(nn.Module):
        def test_step(self, data):
            raise NotImplementedError

    tta_cfg = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    built = registry.MODELS.build(
        dict(type='attnpool_backbones.InstanceTTAModel', tta_cfg=tta_cfg, module=Detector())
    )
    assert isinstance(built, DetTTAModel) and type(built).__name__ == 'InstanceTTAModel'
