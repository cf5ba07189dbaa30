"""Untrained models of nano size in the folders of runs, as a training leaves them."""

from pathlib import Path

import pytest
import torch

from attnpool_backbones.datasets.digit_scenes import generate


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('inference') / 'digit_scenes'
    generate(root, train=4, val=4, size=(96, 64))
    return root


def save_run(
    scenes: Path, folder: Path, head: str, image_head: bool = False, alone: bool = False
) -> Path:
    from attnpool_backbones.launching.config_models import build_config_model
    from attnpool_backbones.own_data.preparing import prepare
    from attnpool_backbones.own_data.request import Request

    request = Request(str(scenes), 'caformer-nano', head, size=96, work_dir=str(folder))
    cfg = prepare(request, tell=lambda line: None).cfg
    if image_head:
        cfg.model.update(
            type='attnpool_backbones.WithImageHead', base=cfg.model.type, image_head={}
        )
    if alone:
        keys = ('backbone', 'data_preprocessor')
        cfg.model = dict(
            {key: cfg.model[key] for key in keys},
            type='attnpool_backbones.ImageTagger',
            image_head=dict(num_classes=10),
        )
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / 'config.py')
    state = build_config_model(cfg).state_dict()
    meta = dict(dataset_meta=dict(classes=tuple(cfg.train_dataloader.dataset.metainfo.classes)))
    torch.save(dict(state_dict=state, meta=meta), folder / 'epoch_1.pth')
    return folder


@pytest.fixture(scope='session')
def detector(scenes, tmp_path_factory):
    """The folder of a run of a Mask R-CNN."""
    pytest.importorskip('mmdet')
    return save_run(scenes, tmp_path_factory.mktemp('runs') / 'detector', 'mask-rcnn')


@pytest.fixture(scope='session')
def segmentor(scenes, tmp_path_factory):
    """The folder of a run of an UperNet."""
    pytest.importorskip('mmseg')
    return save_run(scenes, tmp_path_factory.mktemp('runs') / 'segmentor', 'upernet')


@pytest.fixture(scope='session')
def tagged_detector(scenes, tmp_path_factory):
    """The folder of a run of a Mask R-CNN with an image-level head."""
    pytest.importorskip('mmdet')
    return save_run(scenes, tmp_path_factory.mktemp('runs') / 'tagged', 'mask-rcnn', True)


@pytest.fixture(scope='session')
def tagged_segmentor(scenes, tmp_path_factory):
    """The folder of a run of an UperNet with an image-level head."""
    pytest.importorskip('mmseg')
    return save_run(scenes, tmp_path_factory.mktemp('runs') / 'tagged_seg', 'upernet', True)


@pytest.fixture(scope='session', params=['mmdet', 'mmseg'])
def tagger(scenes, tmp_path_factory, request):
    """The folder of a run of an ImageTagger, on the data of either library."""
    pytest.importorskip(request.param)
    head = {'mmdet': 'mask-rcnn', 'mmseg': 'upernet'}[request.param]
    return save_run(scenes, tmp_path_factory.mktemp('runs') / 'tagger', head, alone=True)
