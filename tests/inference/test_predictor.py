"""Predictions are those of the model's own test, whatever way images come and go."""

import json
import os
import shutil
import threading
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.datasets import ADE20KDataset

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference import config_data, load
from attnpool_backbones.inference.drawing import draw
from attnpool_backbones.inference.loading import find_model_files
from attnpool_backbones.inference.writing import Outputs

IMAGES = 'images/validation'


def predict(run: Path, source, **options):
    return list(load(run, device='cpu')(source, **options))


def assert_same(before, after, atol=0.0):
    """All that two predictions tell, of something."""
    assert before.name == after.name
    if not hasattr(before, 'boxes'):
        assert np.array_equal(before.label_map, after.label_map)
        return
    assert len(before) == len(after) > 0
    assert np.array_equal(before.labels, after.labels)
    for name in ('boxes', 'scores'):
        assert np.allclose(getattr(before, name), getattr(after, name), rtol=0, atol=atol)
    assert np.array_equal(before.masks, after.masks) and before.masks.any()


def test_detections_are_those_of_the_inferencer(detector, scenes):
    from mmdet.apis import inference_detector

    model = load(detector, device='cpu')
    files = sorted((scenes / IMAGES).glob('*.png'))
    found = list(model(scenes / IMAGES, score=0.0))
    assert [p.name for p in found] == [file.name for file in files]
    model.model.cfg = model.cfg
    for prediction, file in zip(found, files, strict=True):
        with DefaultScope.overwrite_default_scope('mmdet'):
            expected = inference_detector(model.model, str(file)).pred_instances
        assert len(prediction) == len(expected) > 0
        order = np.argsort(-expected.scores.numpy(), kind='stable')
        assert np.allclose(prediction.boxes, expected.bboxes.numpy()[order], atol=1e-3)
        assert np.array_equal(prediction.labels, expected.labels.numpy()[order])
        assert np.array_equal(prediction.masks, expected.masks.numpy()[order])
        assert prediction.masks.shape[1:] == (64, 96)


def test_label_maps_are_those_of_the_inferencer(segmentor, scenes):
    from mmseg.apis import inference_model

    model = load(segmentor, device='cpu')
    model.model.cfg = model.cfg
    for prediction in model(scenes / IMAGES):
        with DefaultScope.overwrite_default_scope('mmseg'):
            expected = inference_model(model.model, str(scenes / IMAGES / prediction.name))
        assert np.array_equal(prediction.label_map, expected.pred_sem_seg.data[0].numpy())
        assert prediction.label_map.shape == (64, 96)
        assert sum(prediction.shares().values()) == pytest.approx(1)


@pytest.mark.parametrize('run', ['detector', 'segmentor'])
@pytest.mark.parametrize(
    'options',
    [dict(batch=3), dict(threads=0), dict(batch=2, threads=4), dict(at_once=2),
     dict(at_once=3, batch=2, threads=1)],
)  # fmt: skip
def test_batches_and_threads_change_nothing(run, options, scenes, request):
    folder = request.getfixturevalue(run)
    one, other = (predict(folder, scenes / IMAGES, score=0.0, **o) for o in ({}, options))
    for before, after in zip(one, other, strict=True):
        assert_same(before, after, atol=1e-3)


def test_objects_of_masks_alone_have_the_boxes_of_their_masks(detector, scenes, tmp_path):
    pytest.importorskip('sahi')
    from mmdet.structures.mask import mask2bbox

    run = solo_run(detector, tmp_path)
    (found,) = predict(run, scenes / IMAGES / '000001.png', score=0.0)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert len(found) and (sides > 0).all()
    assert np.array_equal(found.boxes, mask2bbox(torch.from_numpy(found.masks)).numpy())
    assert [r['bbox'][2:] for r in found.to_coco(1, range(10))] == sides.tolist()
    # on the image twice, the second one lower: what slices share is one object
    image = cv2.imread(str(scenes / IMAGES / '000001.png'))
    (cut,) = predict(run, np.tile(image, (2, 1, 1)), score=0.0, side=96, overlap=0.5)
    for mask, box in zip(cut.masks, cut.boxes, strict=True):
        assert np.array_equal(mask2bbox(torch.from_numpy(mask[None]))[0].numpy(), box)
    assert cut.boxes[:, 3].max() > 100


def solo_run(detector, folder):
    """The folder of a run of a SOLO, which finds masks without boxes."""
    from attnpool_backbones.launching.config_models import build_config_model

    cfg = Config.fromfile(detector / 'config.py')
    cfg.model = dict(
        type='mmdet.SOLO',
        data_preprocessor=cfg.model.data_preprocessor,
        backbone=cfg.model.backbone,
        neck=dict(cfg.model.neck, num_outs=5),
        mask_head=dict(
            type='mmdet.SOLOHead',
            num_classes=10,
            in_channels=cfg.model.neck.out_channels,
            feat_channels=32,
            stacked_convs=1,
            num_grids=[8, 6, 4, 3, 2],
            loss_mask=dict(type='mmdet.DiceLoss', use_sigmoid=True, activate=False),
            loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
        ),
        test_cfg=dict(
            nms_pre=20, score_thr=0.0, mask_thr=0.5, filter_thr=0.0, kernel='gaussian', sigma=2.0,
            max_per_img=20,
        ),
    )  # fmt: skip
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    state = build_config_model(cfg).state_dict()
    torch.save(dict(state_dict=state), folder / 'epoch_1.pth')
    return folder


@pytest.mark.parametrize('when', ['loading', 'predicting'])
def test_models_without_objects_are_refused(when, detector, scenes, monkeypatch):
    from mmdet.structures import DetDataSample

    from attnpool_backbones.inference import loading

    built, cfg, classes = loading.load_model(detector)
    words = f'{type(built).__name__} gives no objects.* model.test_cfg.instance_on=True'
    if when == 'loading':
        built.panoptic_fusion_head = torch.nn.Module()
        built.panoptic_fusion_head.test_cfg = Config(dict(panoptic_on=True, instance_on=False))
        monkeypatch.setattr(loading, 'load_model', lambda *_: (built, cfg, classes))
        with pytest.raises(UserError, match=words):
            load(detector, device='cpu')
        built.panoptic_fusion_head.test_cfg.instance_on = True
        assert load(detector, device='cpu').is_detector
        return
    built.test_step = lambda data: [DetDataSample() for _ in data['inputs']]
    predictor = loading.predictor_of(built, cfg, classes, 'cpu')
    with pytest.raises(UserError, match=words):
        list(predictor(scenes / IMAGES, threads=0, at_once=1))


def test_a_model_that_cannot_be_copied_predicts_in_turn(detector, scenes):
    model = load(detector, device='cpu')
    model.model.lock = threading.Lock()
    assert len(list(model(scenes / IMAGES, at_once=2))) == 4


def with_loading(run: Path, **settings):
    options = {f'test_dataloader.dataset.pipeline.0.{k}': v for k, v in settings.items()}
    return load(run, device='cpu', cfg_options=options)


@pytest.mark.parametrize(
    'settings',
    [dict(color_type='grayscale'), dict(color_type='unchanged'), dict(imdecode_backend='tifffile')],
)
def test_loading_that_prediction_does_not_know_is_refused(detector, settings):
    ((key, value),) = settings.items()
    with pytest.raises(UserError, match=f'LoadImageFromFile has {key}={value!r}'):
        with_loading(detector, **settings)


def test_images_are_resized_in_floats_where_the_config_says_so(detector, scenes):
    image = cv2.imread(str(scenes / IMAGES / '000001.png'))
    inputs = [
        with_loading(detector, to_float32=told).pipeline(dict(img=image, img_id=0))['inputs']
        for told in (False, True)
    ]
    assert [made.dtype for made in inputs] == [torch.uint8, torch.float32]


def test_score_and_classes_select(detector, scenes):
    everything = predict(detector, scenes / IMAGES, score=0.0)
    scores = np.concatenate([p.scores for p in everything])
    half = float(np.median(scores))
    kept = predict(detector, scenes / IMAGES, score=half)
    assert sum(map(len, kept)) == int((scores >= half).sum())
    name = everything[0].classes[everything[0].labels[0]]
    only = predict(detector, scenes / IMAGES, score=0.0, classes=[name])
    assert {p.classes[label] for p in only for label in p.labels} == {name}
    with pytest.raises(UserError, match="no class 'tree'.*zero, one"):
        predict(detector, scenes / IMAGES, classes=['tree'])


def test_unreadable_images_are_left_out_and_told(detector, scenes, tmp_path, close_folders):
    from attnpool_backbones.inference.predictor import Options, Speed
    from attnpool_backbones.inference.sources import open_source

    shutil.copytree(scenes / IMAGES, tmp_path / 'photos')
    (tmp_path / 'photos/later').mkdir()
    (tmp_path / 'photos/000002.png').write_text('no image')
    # nothing is left of it where its long side gets as long as the config says
    cv2.imwrite(str(tmp_path / 'photos/000005.png'), np.zeros((1, 3000, 3), np.uint8))
    speed = Speed()
    close_folders('later')
    run = load(detector, device='cpu').run(open_source(tmp_path / 'photos'), Options(), speed)
    assert [p.name for _, p in run] == ['000001.png', '000003.png', '000004.png']
    assert speed.images == 3 and speed.forward > 0
    unreadable, thin, folder = speed.unreadable
    assert folder.startswith('later: ') and folder.endswith('cannot be read: Permission denied')
    assert unreadable == '000002.png: no image'
    assert thin.startswith('000005.png: 3000x1 pixels cannot be prepared as the config says')


@pytest.mark.parametrize('run', ['detector', 'segmentor'])
def test_slices_of_the_whole_image_change_nothing(run, scenes, request):
    pytest.importorskip('sahi')
    folder = request.getfixturevalue(run)
    source = scenes / IMAGES / '000001.png'
    (whole,), (cut,) = (predict(folder, source, score=0.0, side=side) for side in (None, 200))
    assert_same(whole, cut)


@pytest.mark.parametrize('run', ['detector', 'segmentor'])
def test_slices_cover_the_image(run, scenes, tmp_path, request):
    pytest.importorskip('sahi')
    image = cv2.imread(str(scenes / IMAGES / '000001.png'))
    large = np.tile(image, (3, 3, 1))
    (found,) = predict(request.getfixturevalue(run), large, side=96, score=0.0, batch=2)
    assert (found.height, found.width) == (192, 288)
    if run == 'segmentor':
        assert found.label_map.shape == (192, 288)
        return
    assert found.masks.shape == (len(found), 192, 288)
    assert found.boxes[:, 2].max() > 200 and found.boxes[:, 3].max() > 130
    assert np.all(np.diff(found.scores) <= 0)


@pytest.mark.parametrize('count, kind', [(256, np.uint8), (257, np.uint16)])
def test_labels_above_255(count, kind, tmp_path):
    from attnpool_backbones.inference.exported_facts import Facts
    from attnpool_backbones.inference.exported_model import ExportedModel
    from attnpool_backbones.inference.predictor import Predictor
    from attnpool_backbones.inference.preparation import Preparation

    names = tuple(map(str, range(count)))
    facts = Facts('segmentation', names, ((0, 0, 0),) * count, Preparation(), 0.0, None)

    def last(images):
        logits = np.zeros((len(images), count, *images.shape[2:]), np.float32)
        logits[:, -1] = 1
        return dict(logits=logits)

    predictor = Predictor(ExportedModel(last, facts), facts.preparation, names, None, False, 'cpu')
    image = np.zeros((40, 50, 3), np.uint8)
    (found,) = predictor(image)
    assert found.label_map.dtype == kind and found.shares() == {str(count - 1): 1.0}
    outputs = Outputs(tmp_path, ['maps', 'pictures'], False, names)
    outputs.write(image, found)
    outputs.close()
    written = cv2.imread(str(tmp_path / 'label_maps/image.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, found.label_map)


@pytest.mark.parametrize('names', [('dog',), ('cat', 'dog')])
@pytest.mark.parametrize('is_exported', [False, True])
def test_slices_of_classes_that_share_a_channel(names, is_exported, tmp_path):
    pytest.importorskip('sahi')
    from attnpool_backbones.experiments.nano_heads import nano_config
    from attnpool_backbones.export.exporting import describe
    from attnpool_backbones.export.graph import Sizes
    from attnpool_backbones.inference.exported_model import ExportedModel
    from attnpool_backbones.launching.config_models import build_config_model

    cfg = nano_config('resnet', 'semantic-fpn')
    cfg.model.decode_head.update(num_classes=len(names), out_channels=1, threshold=0.2)
    cfg.model.decode_head.loss_decode = dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True)
    cfg.model.data_preprocessor.update(mean=[128.0] * 3, std=[30.0] * 3)
    cfg.dump(tmp_path / 'config.py')
    state = build_config_model(cfg).state_dict()
    meta = dict(dataset_meta=dict(classes=names))
    torch.save(dict(state_dict=state, meta=meta), tmp_path / 'epoch_1.pth')
    predictor = load(tmp_path, device='cpu')
    predictor.model.encode_decode = lambda inputs, metas: inputs.mean(1, keepdim=True)
    if is_exported:
        facts = describe(predictor.model, cfg, predictor.classes, Sizes(64, 96), 'model')
        predictor.model = ExportedModel(
            lambda images: dict(logits=(images.mean(1, keepdims=True) - 128) / 30), facts
        )
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    (whole,), (cut,) = (predictor(image, side=side) for side in (None, 64))
    assert np.array_equal(whole.label_map, cut.label_map)
    assert 0.6 < whole.label_map.mean() < 0.99
    assert list(cut.shares()) == ['dog', 'cat' if len(names) == 2 else 'background']


def test_parts_of_one_object_become_one():
    pytest.importorskip('sahi')
    from attnpool_backbones.inference.prediction import Detections
    from attnpool_backbones.inference.slicing import merge

    def part(box, score, side=10):
        mask = np.zeros((1, side, side), bool)
        mask[0, box[1] : box[3], box[0] : box[2]] = True
        return Detections('', side, side, ['a'], np.array([box], np.float32),
                          np.array([score], np.float32), np.array([0]), mask)  # fmt: skip

    left, right = part((4, 2, 10, 6), 0.8), part((0, 2, 5, 6), 0.9)
    merged = merge([left, right], [(0, 0), (5, 0)], 'x', 10, 15)
    assert merged.boxes.tolist() == [[4, 2, 10, 6]]
    assert merged.scores.tolist() == pytest.approx([0.9])
    masks = np.asarray(merged.masks)
    assert masks.dtype == bool and masks.shape == merged.masks.shape == (1, 10, 15)
    assert masks[0, 2:6, 4:10].all() and masks.sum() == 6 * 4


def test_masks_of_slices_take_no_more_than_their_objects():
    pytest.importorskip('sahi')
    from attnpool_backbones.inference.prediction import Detections
    from attnpool_backbones.inference.slicing import merge

    count, side = 300, 64
    corners = [(side * row, 2000) for row in range(count)]
    mask = np.zeros((1, side, side), bool)
    mask[0, 10:20, 10:30] = True
    parts = [
        Detections(
            '',
            side,
            side,
            ['a'],
            np.array([[10, 10, 30, 20]], np.float32),
            np.array([1 - row / 1000], np.float32),
            np.array([0]),
            mask,
        )
        for row in range(count)
    ]
    height, width = 3000, count * side  # 17 GB as an array
    tracemalloc.start()
    merged = merge(parts, corners, 'x', height, width)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**28 and merged.masks.shape == (count, height, width)
    last = merged.select(np.array([299, 3])).masks
    assert last.shape == (2, height, width)
    ys, xs = np.nonzero(last[0])
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (2010, 2019, 10 + 299 * 64, 29 + 299 * 64)
    assert merged.select(merged.scores > 2).masks.shape == (0, height, width)
    (coded,) = merged.select(np.array([0])).run_lengths()
    assert coded['size'] == [height, width]


def test_everything_is_written(detector, segmentor, scenes, tmp_path):
    from pycocotools.coco import COCO

    annotations = scenes / 'annotations/instances_val.json'
    model = load(detector, device='cpu')
    outputs = Outputs(tmp_path / 'a', ['pictures', 'json', 'coco'], True, model.classes,
                      annotations=str(annotations))  # fmt: skip
    images = {}
    for prediction in model(scenes / IMAGES, score=0.0):
        images[prediction.name] = cv2.imread(str(scenes / IMAGES / prediction.name))
        outputs.write(images[prediction.name], prediction)
    assert {path.name for path in outputs.close()} == {
        'pictures', 'predictions.jsonl', 'coco_results.json'
    }  # fmt: skip
    assert len(list((tmp_path / 'a/pictures').iterdir())) == 4
    lines = [json.loads(line) for line in (tmp_path / 'a/predictions.jsonl').open()]
    assert [line['image'] for line in lines] == sorted(images)
    assert set(lines[0]['objects'][0]) == {'class', 'label', 'score', 'box', 'mask'}
    truth = COCO(str(annotations))
    results = truth.loadRes(str(tmp_path / 'a/coco_results.json'))
    assert len(results.anns) == sum(len(line['objects']) for line in lines)

    model = load(segmentor, device='cpu')
    outputs = Outputs(tmp_path / 'b', ['maps', 'pictures'], False, model.classes)
    (prediction,) = model(scenes / IMAGES / '000001.png')
    outputs.write(images['000001.png'], prediction)
    outputs.close()
    written = cv2.imread(str(tmp_path / 'b/label_maps/000001.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, prediction.label_map)


def test_outputs_that_a_model_does_not_have(tmp_path):
    with pytest.raises(UserError, match='label maps are of segmentors'):
        Outputs(tmp_path, ['maps'], True, ['a'])
    with pytest.raises(UserError, match='of detectors'):
        Outputs(tmp_path, ['coco'], False, ['a'])
    (tmp_path / 'a.json').write_text('{"images": [], "categories": [{"name": "b", "id": 1}]}')
    with pytest.raises(UserError, match='no category a; it has b'):
        Outputs(tmp_path, ['coco'], True, ['a'], annotations=str(tmp_path / 'a.json'))


def test_images_of_the_same_name_are_all_written(segmentor, scenes, tmp_path):
    model = load(segmentor, device='cpu')
    image = cv2.imread(str(scenes / IMAGES / '000001.png'))
    for name in ('a.png', 'a.jpg', 'b/a.png'):
        (tmp_path / 'photos/b').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'photos' / name), image)
    outputs = Outputs(tmp_path / 'out', ['maps'], False, model.classes)
    for prediction in model(tmp_path / 'photos'):
        outputs.write(image, prediction)
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 3


def test_drawing_leaves_the_image_alone(detector, segmentor, scenes):
    image = cv2.imread(str(scenes / IMAGES / '000001.png'))
    kept = image.copy()
    for run in (detector, segmentor):
        (prediction,) = load(run, device='cpu')(image, score=0.0)
        drawn = draw(image, prediction)
        assert drawn.shape == image.shape and not np.array_equal(drawn, image)
        assert np.array_equal(image, kept)


def test_best_checkpoint_is_taken_before_the_last(tmp_path):
    (tmp_path / 'run').mkdir()
    for name in ('config.py', 'epoch_9.pth', 'epoch_10.pth', 'best_mIoU_epoch_4.pth'):
        (tmp_path / 'run' / name).touch()
    assert find_model_files(tmp_path / 'run')[1].name == 'best_mIoU_epoch_4.pth'
    (tmp_path / 'run/best_mIoU_epoch_4.pth').unlink()
    assert find_model_files(tmp_path / 'run')[1].name == 'epoch_10.pth'


@pytest.mark.parametrize(
    'names, last, expected',
    [
        (['best_mIoU_epoch_38.pth', 'best_mIoU_epoch_12.pth'], None, 'best_mIoU_epoch_12.pth'),
        (['epoch_50.pth', 'epoch_20.pth'], 'epoch_20.pth', 'epoch_20.pth'),
        (['epoch_50.pth', 'interim_iter_9.pth'], '/moved/run/interim_iter_9.pth',
         'interim_iter_9.pth'),
        # not there any more
        (['epoch_10.pth', 'epoch_9.pth'], 'epoch_11.pth', 'epoch_10.pth'),
    ],
)  # fmt: skip
def test_checkpoint_is_that_of_the_last_run(tmp_path, names, last, expected):
    (tmp_path / 'config.py').touch()
    for age, name in enumerate(reversed(names)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (10**9 - age, 10**9 - age))
    if last:
        (tmp_path / 'last_checkpoint').write_text(last)
    assert find_model_files(tmp_path)[1].name == expected


@pytest.mark.parametrize(
    'model, checkpoint, words',
    [
        ('nowhere', None, 'model not found'),
        ('weights.pth', None, 'a checkpoint alone does not say'),
        ('empty', None, 'no config'),
        ('unsaved', None, 'no checkpoint'),
        ('config.py', None, 'name the checkpoint too'),
        ('config.py', 'nowhere.pth', 'checkpoint not found'),
        ('model.tflite', None, 'a model is the folder of a run or a config'),
    ],
)
def test_model_that_is_none(tmp_path, monkeypatch, model, checkpoint, words):
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('unsaved').mkdir()
    for name in ('weights.pth', 'unsaved/config.py', 'config.py', 'model.tflite'):
        Path(name).touch()
    with pytest.raises(UserError, match=words):
        find_model_files(model, checkpoint)


def test_a_test_leaves_the_config_of_the_run(segmentor, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(segmentor, tmp_path / 'work_dirs/run')
    before = (run / 'config.py').read_bytes()
    options = ['model.test_cfg.mode=slide', 'model.test_cfg.crop_size=[64,64]']
    words = ['--work-dir', str(run), '--cfg-options', *options, 'model.test_cfg.stride=[32,32]']
    assert main(['test', str(run), *words]) == 0
    assert (run / 'config.py').read_bytes() == before and len(list(run.glob('*.py'))) == 1
    # what was tested is in the folder of the log
    (tested,) = run.glob('*/config.py')
    assert 'slide' in tested.read_text()
    assert len(predict(run, scenes / IMAGES)) == 4


@pytest.mark.parametrize('told', ['checkpoint', 'old checkpoint', 'config', 'data set', 'wrapped'])
def test_names_of_the_classes(told, segmentor, tmp_path):
    from attnpool_backbones.launching.config_models import build_config_model

    cfg = Config.fromfile(segmentor / 'config.py')
    cfg.model.decode_head.num_classes = 19
    dataset = dict(type='CityscapesDataset', pipeline=cfg.test_dataloader.dataset.pipeline)
    if told == 'config':
        dataset['metainfo'] = dict(classes=[f'class {label} of the config' for label in range(19)])
    if told == 'wrapped':
        dataset = dict(type='ConcatDataset', datasets=[dataset])
    cfg.test_dataloader.dataset = dataset
    cfg.dump(tmp_path / 'config.py')
    own = tuple(f'class {label} of the checkpoint' for label in range(19))
    meta = {
        'checkpoint': dict(dataset_meta=dict(classes=own), CLASSES=('another',) * 19),
        'old checkpoint': dict(CLASSES=own),
        'data set': dict(CLASSES=own[:5]),
    }
    content = dict(state_dict=build_config_model(cfg).state_dict(), meta=meta.get(told, {}))
    torch.save(content, tmp_path / 'epoch_1.pth')
    first = {'checkpoint': own[0], 'old checkpoint': own[0], 'config': 'class 0 of the config'}
    classes = load(tmp_path, device='cpu').classes
    assert len(classes) == 19 and classes[0] == first.get(told, 'road')


COLOURS = ADE20KDataset.METAINFO['palette']


@pytest.mark.parametrize(
    ('kind', 'metainfo', 'classes', 'expected'),
    [
        ('ADE20KDataset', {}, ('building', 'wall'), [COLOURS[1], COLOURS[0]]),
        ('mmseg.ADE20KDataset', dict(classes=('sky',)), ('sky',), [COLOURS[2]]),
        ('ADE20KDataset', dict(palette=[[1, 2, 3]]), ('wall',), [[1, 2, 3]]),
        ('ADE20KDataset', {}, ('wall', 'digit'), list(distinct_colours(2))),
        ('BaseSegDataset', {}, ('wall',), list(distinct_colours(1))),
    ],
)
def test_colours_are_those_of_the_data_set(kind, metainfo, classes, expected):
    dataset = dict(type=kind, metainfo=metainfo)
    cfg = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))
    assert list(config_data.tested_palette(cfg, classes)) == expected


def test_checkpoint_of_another_model(detector, segmentor):
    with pytest.raises(UserError, match='another model'):
        load(detector / 'config.py', segmentor / 'epoch_1.pth')


def test_loading_leaves_the_random_numbers_of_the_caller(segmentor):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(segmentor, device='cpu')
    assert torch.equal(torch.rand(2), expected)
