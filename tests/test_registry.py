"""Whatever is registered is found by its scope's name, without another import and without mmdet."""

import json
import subprocess
import sys

import pytest
from mmengine.registry import Registry
from torch import nn

from attnpool_backbones import registry

PACKAGE = registry.__name__.partition('.')[0]
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
    return {
        # tests register classes, too
        name: sorted(k for k, v in each.module_dict.items() if v.__module__.startswith(PACKAGE))
        for name, each in REGISTRIES.items()
    }


def test_no_registry_is_empty(registered):
    assert [name for name, keys in registered.items() if not keys] == []


def test_everything_is_found_by_name_alone(registered):
    assert 'InstanceTTAModel' in registered['MODELS']
    done = subprocess.run(
        [sys.executable, '-c', LIST, json.dumps(registered)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize(
    ('library', 'base', 'name', 'options'),
    [
        ('mmdet', 'DetTTAModel', 'InstanceTTAModel', dict(tta_cfg=dict(max_per_img=100))),
        ('mmseg', 'SegTTAModel', 'SemanticTTAModel', {}),
    ],
)
def test_the_models_of_tta_are_built_by_name(library, base, name, options):
    models = pytest.importorskip(f'{library}.models')

    class Model(nn.Module):
        def test_step(self, data):
            raise NotImplementedError

    built = registry.MODELS.build(
        dict(type=f'attnpool_backbones.{name}', module=Model(), **options)
    )
    assert isinstance(built, getattr(models, base)) and type(built).__name__ == name
