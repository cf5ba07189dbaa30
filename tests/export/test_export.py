"""Exported files predict what their models predict; see test_metrics for all families and heads."""

import io
import weakref
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.experiments.nano_heads import nano_config
from attnpool_backbones.export.checking import compare
from attnpool_backbones.export.exporting import (
    CHECKED,
    EXAMPLE,
    Request,
    check,
    choose_sizes,
    describe,
    export,
    noise,
)
from attnpool_backbones.export.graph import Sizes, build_graph, fixed_because, trace
from attnpool_backbones.export.onnx_file import to_onnx
from attnpool_backbones.inference import config_data
from attnpool_backbones.inference.exported_model import ExportedModel
from attnpool_backbones.inference.loading import predictor_of
from attnpool_backbones.inference.onnx_engine import OnnxEngine
from attnpool_backbones.inference.predictor import Predictor
from attnpool_backbones.launching.config import load_config
from tests.export.models import classes_of, untrained

FULL = [
    'patchconvnet/mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py',
    'metaformer/upernet_caformer-s18_8xb2-160k_ade20k-512x512.py',
    'poolformer/retinanet_poolformer-s12_fpn_1x_coco.py',
    'coatnet/mask-rcnn_coatnet-0-rw_fpn_ms-3x_coco.py',
    'deepvit/upernet_deepvit-s_8xb2-160k_ade20k-512x512.py',
    'attn_resnet/cascade-rcnn_sge-resnet50_fpn_20e_coco.py',
    'baselines/faster-rcnn_resnet50_fpn_2x_coco.py',
]
"""One size a family that others train."""
FAST = [('caformer', 'mask-rcnn'), ('patchconvnet', 'semantic-fpn')]


@pytest.mark.parametrize('family, head', FAST)
def test_file_predicts_what_the_model_does(family, head):
    cfg = nano_config(family, head)
    model = untrained(cfg)
    _, found = compare_file(cfg, model)
    assert hasattr(model, 'decode_head') or found.objects, found


def test_pyramids_whose_smallest_maps_have_one_row_take_any_size():
    cfg = nano_config('poolformer', 'retinanet')
    cfg.model.neck.num_outs = 5
    cfg.model.neck.norm_cfg = None
    cfg.model.bbox_head.anchor_generator.strides = [8, 16, 32, 64, 128]
    _, found = compare_file(cfg, untrained(cfg))
    assert found.objects, found


@pytest.mark.parametrize('head', ['semantic-fpn', 'retinanet'])
def test_room_around_an_image_is_that_of_the_model(head):
    cfg = nano_config('resnet', head)
    cfg.model.data_preprocessor.update(
        dict(test_cfg=dict(size_divisor=32))
        if head == 'semantic-fpn'
        else dict(pad_size_divisor=32)
    )
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize' and head != 'semantic-fpn':
            step.scale = (128, 96)
    found = compare_graph(cfg, noise(Sizes(72, 128, fixed=True))[:1])
    # of two boxes that both end below the image, the file suppresses one by what is cut off later
    assert found.parted <= (0.1 if found.objects else 1e-4) * found.total, found
    assert head == 'semantic-fpn' or found.objects, found


@pytest.mark.parametrize('head', ['semantic-fpn', 'retinanet'])
def test_images_are_stretched_as_the_model_stretches_them(head):
    cfg = nano_config('resnet', head)
    resize = dict(type='Resize', scale=(128, 96), keep_ratio=False)
    steps = [s for s in cfg.test_dataloader.dataset.pipeline if 'Resize' not in s.type]
    cfg.test_dataloader.dataset.pipeline = [steps[0], resize, *steps[1:]]
    found = compare_graph(cfg, noise(Sizes(120, 70, fixed=True))[:1])
    assert found.parted <= (0.01 if found.objects else 1e-4) * found.total, found
    assert head == 'semantic-fpn' or found.objects, found


def compare_graph(cfg, images):
    """Compares a model and its graph for images of 96x128 on images of other sizes."""
    model = untrained(cfg)
    classes = classes_of(model)
    graph = build_graph(model, cfg)
    facts = describe(model, cfg, classes, Sizes(96, 128, 1, fixed=True), 'model')

    def engine(images):
        with torch.no_grad():
            values = graph(torch.from_numpy(images))
        return {n: v.numpy() for n, v in zip(graph.outputs, values, strict=True)}

    reference = predictor_of(model, cfg, classes, 'cpu')
    exported = Predictor(
        ExportedModel(engine, facts), facts.preparation, classes, None, reference.is_detector, 'cpu'
    )
    return compare(*(list(predictor(images, score=0.0)) for predictor in (reference, exported)))


@pytest.mark.parametrize(
    'family, head, scale, size',
    [
        ('patchconvnet', 'semantic-fpn', None, (96, 104)),  # patches of 8 pixels
        ('patchconvnet', 'semantic-fpn', (100, 90), (90, 100)),  # as the model itself
        ('patchconvnet', 'retinanet', None, (90, 100)),
        ('resnet', 'semantic-fpn', None, (90, 100)),
    ],
)
def test_label_maps_cover_whole_patches(family, head, scale, size):
    cfg = nano_config(family, head)
    if scale:
        steps = cfg.test_dataloader.dataset.pipeline
        steps.append(dict(type='Resize', scale=scale, keep_ratio=False))
    sizes = choose_sizes(untrained(cfg), cfg, Request('', '', size=(90, 100)))
    assert (sizes.height, sizes.width) == size


def test_what_becomes_of_sizes_and_images_is_told(tmp_path, close_folders, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = nano_config('patchconvnet', 'semantic-fpn')
    (step,) = (s for s in cfg.test_dataloader.dataset.pipeline if s.type == 'Resize')
    step.update(scale=(80, 64), keep_ratio=False)
    cfg.dump(str(tmp_path / 'model.py'))
    weights = tmp_path / 'model.pth'
    torch.save(dict(meta={}, state_dict=untrained(cfg).state_dict()), weights)
    (tmp_path / 'photos/lost+found').mkdir(parents=True)
    close_folders('lost+found')
    photos = str(tmp_path / 'photos')
    words = ['--checkpoint', str(weights), '--size', '90', '100', '--images', photos]
    assert main(['export', str(tmp_path / 'model.py'), *words]) == 2
    told = capsys.readouterr()
    assert '--images: left out: lost+found: ' in told.out
    assert '96x104 (height and width), 1 at once, and no others, because ' in told.out
    assert 'whole patches of 8 pixels' in told.out
    assert 'the config stretches images to 64x80, the file keeps their ratio' in told.out
    assert f'--images: no image in {photos} can be read' in told.err


@pytest.mark.slow
@pytest.mark.parametrize('path', FULL)
def test_file_of_full_size(path):
    cfg = load_config(str(config_root() / path))
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (160, 128)
    test_cfg = cfg.model.get('test_cfg') or {}
    if 'score_thr' in (test_cfg.get('rcnn') or test_cfg):
        # of eighty classes no one is likely before a training
        (test_cfg.get('rcnn') or test_cfg).score_thr = 1e-3
    model = untrained(cfg)
    _, found = compare_file(cfg, model)
    assert hasattr(model, 'decode_head') or found.objects, found


def compare_file(cfg, model, only=(96, 128)):
    """Exports a model for any size, or for ``only`` one if it allows no more."""
    classes = classes_of(model)
    is_fixed = fixed_because(model) is not None
    assert is_fixed == any(name in type(model.backbone).__name__ for name in ('Swin', 'CoAtNet'))
    sizes = Sizes(*only, batch=1, fixed=True) if is_fixed else Sizes(*EXAMPLE)
    graph = build_graph(model, cfg)
    facts = describe(model, cfg, classes, sizes, 'model')
    engine = OnnxEngine(to_onnx(trace(graph, sizes), graph.outputs, facts))
    reference = predictor_of(model, cfg, classes, 'cpu')
    found = check(reference, engine, facts, noise(sizes))
    assert found.images == (1 if is_fixed else 3)
    # a pixel between two classes may go to either; objects are ranked and cut off by more than that
    assert found.parted <= (0 if found.objects else 1e-4 * found.total), found
    if not is_fixed:
        images = [noise(sizes)[0]] * 3
        exported = Predictor(ExportedModel(engine, facts), facts.preparation, classes, None,
                             reference.is_detector, 'cpu')  # fmt: skip
        one, *_, last = exported(images, batch=3, score=0.0)
        assert np.allclose(*(getattr(p, 'boxes', getattr(p, 'label_map', None))
                             for p in (one, last)), atol=1e-3)  # fmt: skip
    return ExportedModel(engine, facts).eval(), found


@pytest.mark.slow
def test_other_kinds_of_files():
    from attnpool_backbones.export.exporting import prepared
    from attnpool_backbones.export.int8 import keep_of, quantise
    from attnpool_backbones.export.torch_file import run_program, to_pt2

    cfg = nano_config('resnet', 'mask-rcnn')
    model = untrained(cfg)
    classes = classes_of(model)
    sizes = Sizes(96, 128)
    graph = build_graph(model, cfg)
    facts = describe(model, cfg, classes, sizes, 'resnet')
    program = trace(graph, sizes)
    reference = predictor_of(model, cfg, classes, 'cpu')
    images = noise(sizes)
    found = check(reference, run_program(to_pt2(program, facts), graph.outputs), facts, images)
    assert found.parted == 0 and found.objects, found
    content = to_onnx(program, graph.outputs, facts)
    smaller = quantise(content, [prepared(image, facts) for image in images])
    assert len(smaller) < 0.5 * len(content)
    results = []
    for file in (content, smaller):
        exported = ExportedModel(OnnxEngine(file), facts)
        results.append(list(Predictor(exported, facts.preparation, classes, None, True, 'cpu')(
            images, score=0.0
        )))  # fmt: skip
    kept = keep_of(*results)
    assert kept.total and kept.share > 0.5
    assert keep_of(results[0], results[0]).share == 1
    pytest.importorskip('openvino')
    from attnpool_backbones.export.openvino_file import to_openvino
    from attnpool_backbones.inference.openvino_engine import OpenVinoEngine

    found = check(reference, OpenVinoEngine(*to_openvino(content, facts)), facts, images)
    assert found.holds and found.objects, found


def test_what_cannot_be_exported():
    cfg = nano_config('resnet', 'mask-rcnn')
    cfg.model.test_cfg.rcnn.nms.type = 'soft_nms'
    with pytest.raises(UserError, match='rcnn.nms.*soft_nms.*--cfg-options model.test_cfg.rcnn'):
        build_graph(untrained(cfg), cfg)
    cfg = nano_config('resnet', 'upernet')
    cfg.model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    with pytest.raises(UserError, match="mode='slide'.*--cfg-options"):
        build_graph(untrained(cfg), cfg)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(scale=(100_000, 800)), 'scale has to be a width and a height, not .100000, 800.'),
        (dict(mask=-1), "mask cannot be '-1.0'"),
        (dict(name='a' * 201), "classes cannot be .*'aaa"),
    ],
)
def test_what_no_file_could_be_opened_with_is_refused(change, words):
    cfg = nano_config('resnet', 'mask-rcnn')
    model = untrained(cfg)
    classes = list(classes_of(model))
    classes[0] = change.get('name', classes[0])
    if 'scale' in change:
        (step,) = (
            s for s in config_data.tested_dataset(cfg).pipeline if s['type'].endswith('Resize')
        )
        step['scale'] = change['scale']
    model.test_cfg.rcnn.mask_thr_binary = change.get('mask', 0.5)
    with pytest.raises(UserError, match=f'an exported file cannot hold .*{words}'):
        describe(model, cfg, classes, Sizes(96, 128), 'resnet')


@pytest.mark.parametrize('change', [dict(score=0.01), dict(box=1.0), dict(label=1), dict(gone=1)])
def test_differences_are_found(change):
    from attnpool_backbones.export.checking import compare
    from attnpool_backbones.inference.prediction import Detections

    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 50, (8, 4)).astype(np.float32)
    scores, labels = np.linspace(1, 0.1, 8, dtype=np.float32), np.arange(8) % 3
    one = Detections('a', 64, 64, ('a', 'b', 'c'), boxes, scores, labels)
    assert compare([one], [one]).holds
    other = one.select(np.arange(8 - change.get('gone', 0)))
    other.scores[0] += change.get('score', 0)
    other.boxes[0, 2] += change.get('box', 0)
    other.labels[0] = (other.labels[0] + change.get('label', 0)) % 3
    result = compare([one], [other])
    assert not result.holds and result.parted


def objects(mask):
    """Three objects, the first one with a mask."""
    from attnpool_backbones.inference.prediction import Detections

    masks = np.zeros((3, 64, 64), bool)
    masks[0] = mask
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    scores, labels = np.linspace(1, 0.5, 3, dtype=np.float32), np.arange(3)
    return Detections('a', 64, 64, ('a', 'b', 'c'), boxes, scores, labels, masks)


@pytest.mark.parametrize(
    'side, more, agree',
    [(40, 10, True), (40, 400, False), (40, -1600, False), (2, 2, True), (2, 40, False)],
)
def test_masks_have_to_be_the_same(side, more, agree):
    one, other = np.zeros((2, 64, 64), bool)
    one[:side, :side] = other[:side, :side] = True
    if more > 0:
        other.reshape(-1)[-more:] = True
    else:
        other[:] = False
    found = compare([objects(one)], [objects(other)])
    assert found.holds == agree and bool(found.parted) != agree


def test_objects_where_the_model_has_none_are_told_as_objects():
    some = objects(np.zeros((64, 64), bool))
    found = compare([some.select(np.arange(0))], [some])
    assert not found.holds and '3 objects are in one result only' in str(found)
    assert 'pixels have another label' not in str(found)


def test_predictions_with_masks_are_compared_one_by_one(monkeypatch):
    from attnpool_backbones.export import exporting

    made, most = [], 0

    def predictor(images, **options):
        nonlocal most
        for _ in images:
            found = objects(np.zeros((64, 64), bool))
            made.append(weakref.ref(found.masks))
            most = max(most, sum(masks() is not None for masks in made))
            yield found

    monkeypatch.setattr(exporting, 'predictor_of_file', lambda *args: predictor)
    facts = SimpleNamespace(size=None, batch=None)
    found = check(predictor, None, facts, [np.zeros((64, 64, 3), np.uint8)] * 8)
    assert found.holds and found.images == 8 and most <= 4


def test_standard_input_is_not_read_twice(tmp_path, monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(b'photos/a.png'))
    monkeypatch.setattr('sys.stdin', stdin)
    assert main(['export', str(tmp_path), '--images', '-', '--out', str(tmp_path / 'a.onnx')]) == 2
    assert '--images -: images are read twice' in capsys.readouterr().err
    assert stdin.buffer.read() == b'photos/a.png'


@pytest.mark.parametrize(
    'shape, others, options, words',
    [
        (
            (64, 64),
            0,
            dict(cfg_options=dict(max_pixels=1000)),
            'a.png has 64x64 pixels, more than the 1000',
        ),
        ((1, 3000), 0, {}, '--images: a.png: 3000x1 pixels cannot be prepared as the config says'),
        ((1, 3000), CHECKED, dict(int8=True), '--images: a.png: 3000x1 pixels cannot be prepared'),
    ],
)
def test_images_that_cannot_be_taken_are_told_before_the_work(
    shape, others, options, words, tmp_path, monkeypatch
):
    monkeypatch.setattr('attnpool_backbones.export.exporting.trace', None)
    for number in range(others):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.zeros((64, 64, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((*shape, 3), np.uint8))
    cfg = nano_config('resnet', 'retinanet')
    cfg.dump(str(tmp_path / 'model.py'))
    weights = tmp_path / 'model.pth'
    torch.save(dict(meta={}, state_dict=untrained(cfg).state_dict()), weights)
    request = Request(
        str(tmp_path / 'model.py'),
        str(tmp_path / 'model.onnx'),
        str(weights),
        images=str(tmp_path),
        **options,
    )
    with pytest.raises(UserError, match=words):
        export(request, lambda text: None)
    assert not (tmp_path / 'model.onnx').exists()
