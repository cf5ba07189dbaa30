"""What a config's path says, and what it cannot say."""

import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.records import ADE20K, COCO, DIGIT_SCENES
from attnpool_backbones.zoo.config_names import config_name, families, list_configs


@pytest.mark.parametrize(
    ('path', 'head', 'backbone', 'schedule', 'data_set'),
    [
        (
            'attn_resnet/cascade-mask-rcnn_sge-resnet101_fpn_20e_coco.py',
            'cascade-mask-rcnn', 'sge-resnet101', '20e', COCO,
        ),
        (
            'patchconvnet/mask-rcnn_patchconvnet-l120_fpn_ms-3x-fsdp_coco.py',
            'mask-rcnn', 'patchconvnet-l120', 'ms-3x-fsdp', COCO,
        ),
        (
            'poolformer/semantic-fpn_poolformer-s12_8xb4-40k_ade20k-512x512.py',
            'semantic-fpn', 'poolformer-s12', '40k', ADE20K,
        ),
        (
            'baselines/mask-rcnn_swin-nano_slim-fpn_digit-scenes.py',
            'mask-rcnn', 'swin-nano', '', DIGIT_SCENES,
        ),
        (
            'coatnet/upernet_coatnet-nano_slim_digit-scenes.py',
            'upernet', 'coatnet-nano', '', DIGIT_SCENES,
        ),
    ],
)  # fmt: skip
def test_a_name_is_read(path, head, backbone, schedule, data_set):
    name = config_name(f'/somewhere/configs/{path}')
    assert (name.path, name.family) == (path, path.split('/')[0])
    assert (name.head, name.backbone, name.schedule) == (head, backbone, schedule)
    assert name.data_set is data_set
    assert name.segments == (head in ('upernet', 'semantic-fpn'))
    assert name.is_nano == ('nano' in path)


@pytest.mark.parametrize(
    'name',
    [
        'mask-rcnn_x', 'yolo_resnet50_fpn_1x_coco', 'mask-rcnn_resnet50_fpn_1x_lvis',
        'upernet_resnet50_160k_ade20k-512x512', 'mask-rcnn_resnet50_fpn_1x_coco_old',
    ],
)  # fmt: skip
def test_another_name_is_refused(name):
    with pytest.raises(UserError, match=f'{name}.py is no name of a config.*mask-rcnn.*ade20k'):
        config_name(f'family/{name}.py')


def test_every_file_is_listed(repo_root):
    configs = repo_root / 'configs'
    assert {path.name for path in configs.iterdir() if path.is_dir()} == {
        '_base_', 'classification', *families(configs)
    }  # fmt: skip
    listed = [config.path for config in list_configs(configs)]
    assert (
        len(listed)
        == len(set(listed))
        == len(
            [path for path in configs.glob('[!_]*/*.py') if path.parent.name != 'classification']
        )
    )
