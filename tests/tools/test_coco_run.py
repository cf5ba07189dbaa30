"""The published COCO recipe on a folder in COCO's layout: trained, killed, resumed, tested."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from mmdet.datasets import CocoDataset

from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from tests.patience import comes_true

CONFIG = config_root() / 'patchconvnet' / 'mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py'
SCALES = '"[(96,128)]"'
OPTIONS = [
    # What makes a step take a second on a CPU: small images; and no file to download.
    'model.backbone.init_cfg=None',
    f'train_dataloader.dataset.pipeline.3.transforms.0.0.scales={SCALES}',
    f'train_dataloader.dataset.pipeline.3.transforms.1.0.scales={SCALES}',
    f'train_dataloader.dataset.pipeline.3.transforms.1.2.scales={SCALES}',
    'val_dataloader.dataset.pipeline.1.scale=(96,128)',
    'test_dataloader.dataset.pipeline.1.scale=(96,128)',
    'train_cfg.max_epochs=3',
    # Three epochs may leave no score above the threshold, and then there is no metric.
    'model.test_cfg.rcnn.score_thr=0.0',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with ``data/coco`` in COCO's layout, whose digits pass for COCO classes."""
    folder = tmp_path_factory.mktemp('coco_run')
    scenes = folder / 'scenes'
    generate(scenes, train=4, val=2)
    coco = folder / 'data' / 'coco'
    for split, images in (('train', 'training'), ('val', 'validation')):
        shutil.copytree(scenes / 'images' / images, coco / f'{split}2017')
        content = json.loads((scenes / 'annotations' / f'instances_{split}.json').read_text())
        names = CocoDataset.METAINFO['classes']
        content['categories'] = [dict(id=i, name=name) for i, name in enumerate(names)]
        target = coco / 'annotations' / f'instances_{split}2017.json'
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))
    return folder


def start(place, repo_root, tool, *arguments):
    command = [sys.executable, str(repo_root / 'tools' / tool), str(CONFIG), *arguments]
    return subprocess.Popen(
        [*command, '--cfg-options', *(option.replace('"', '') for option in OPTIONS)],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
    )


@pytest.mark.slow
def test_train_kill_resume_test(place, repo_root):
    run = start(place, repo_root, 'train.py', '--work-dir', 'run')

    def is_saved() -> bool:
        saved = (place / 'run' / 'epoch_1.pth').exists()
        assert saved or run.poll() is None, run.stdout.read()
        return saved

    assert comes_true(is_saved, 900)
    run.send_signal(signal.SIGKILL)
    run.wait()

    resumed = start(place, repo_root, 'train.py', '--work-dir', 'run', '--resume', 'auto')
    output, _ = resumed.communicate()
    assert resumed.returncode == 0, output
    assert 'resumed epoch: ' in output
    assert 'Epoch(train) [1]' not in output and 'Epoch(val) [3]' in output

    tested = start(place, repo_root, 'test.py', 'run/epoch_3.pth')
    output, _ = tested.communicate()
    assert tested.returncode == 0, output
    assert 'coco/bbox_mAP' in output and 'coco/segm_mAP' in output


def test_without_coco_it_says_where_to_put_it(tmp_path, repo_root):
    run = start(tmp_path, repo_root, 'train.py')
    output, _ = run.communicate()
    assert run.returncode != 0
    assert 'Traceback' not in output
    assert 'data/coco/annotations/instances_train2017.json' in output
