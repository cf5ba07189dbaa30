from pathlib import Path

import numpy as np
import pytest
from mmengine.model import PretrainedInit

from attnpool_backbones.checkpoints.fetching import local_copy
from attnpool_backbones.command_line import UserError
from attnpool_backbones.own_data.anchors import Anchors, choose_anchors, covered
from attnpool_backbones.own_data.bases import (
    choose_bases,
    download_weights,
    find_backbones,
    weights_at_hand,
)
from attnpool_backbones.own_data.class_lists import parse_class_list, read_class_list
from attnpool_backbones.own_data.planning import choose_epochs, choose_size, make_plan
from tests.serving import serving

USUAL, STRIDES = Anchors((8,), (0.5, 1.0, 2.0)), [4, 8, 16, 32, 64]


@pytest.mark.parametrize('images, epochs', [(20, 100), (205, 77), (2000, 25), (100_000, 12)])
def test_few_images_are_seen_more_often(images, epochs):
    assert choose_epochs(images) == epochs


@pytest.mark.parametrize(
    'sizes, size',
    [([(640, 480)] * 3, 640), ([(4000, 3000)], 1333), ([(50, 40)], 256), ([(700, 500)], 704)],
)
def test_images_keep_their_size_within_reason(sizes, size):
    assert choose_size(sizes) == size


def test_what_is_said_is_not_chosen():
    bases = choose_bases('caformer-nano', 'faster-rcnn')
    said = dict(epochs=7, batch=3, lr=0.5, size=96, freeze=2)
    plan = make_plan(bases, [(640, 480)], 100, **said)
    assert (plan.epochs, plan.batch, plan.lr, plan.size, plan.frozen) == (7, 3, 0.5, 96, 2)


def test_rates_follow_batch_head_and_weights():
    def rate(backbone: str, head: str, batch: int, weights: str | None) -> float:
        return make_plan(choose_bases(backbone, head), [(640, 480)], 1000, weights, batch=batch).lr

    assert rate('caformer-s18', 'mask-rcnn', 16, 'a.pth') == 2e-4
    assert rate('caformer-s18', 'mask-rcnn', 8, 'a.pth') == 1.4e-4  # 2e-4 over the root of 2
    assert rate('caformer-s18', 'mask-rcnn', 4, 'a.pth') == 1e-4
    assert rate('caformer-s18', 'retinanet', 16, 'a.pth') == 1e-4
    assert rate('caformer-s18', 'mask-rcnn', 16, None) == 1e-3
    assert rate('caformer-nano', 'mask-rcnn', 16, None) == 2e-3


@pytest.mark.parametrize(
    'images, weights, frozen', [(100, 'a', 1), (5000, 'a', -1), (100, None, -1)]
)
def test_early_stages_of_pretrained_backbones_are_kept_for_small_data(images, weights, frozen):
    plan = make_plan(choose_bases('caformer-s18', 'retinanet'), [(640, 480)], images, weights)
    assert plan.frozen == frozen


def test_usual_boxes_keep_the_usual_anchors():
    boxes = np.random.uniform(40, 300, (500, 1)) * [[1.0, 1.2]]
    assert choose_anchors(boxes, USUAL, STRIDES) is None


@pytest.mark.parametrize('shape', [(6, 6), (12, 100), (100, 12)])
def test_unusual_boxes_get_anchors_that_cover_them(shape):
    boxes = np.random.uniform(0.8, 1.25, (500, 2)) * shape
    chosen = choose_anchors(boxes, USUAL, STRIDES)
    assert covered(boxes, USUAL, STRIDES) < 0.9
    assert covered(boxes, chosen, STRIDES) > covered(boxes, USUAL, STRIDES) + 0.1


def test_retinanet_keeps_its_octaves():
    boxes = np.random.uniform(5, 9, (500, 2))
    scales = tuple(4 * 2 ** (step / 3) for step in range(3))
    chosen = choose_anchors(boxes, Anchors(scales, (1.0,)), [8, 16], per_octave=3)
    assert len(chosen.scales) == 3
    assert np.allclose(np.diff(np.log2(chosen.scales)), 1 / 3)


@pytest.mark.parametrize(
    'text, names, colours',
    [
        ('cat\ndog\n', ('cat', 'dog'), None),
        ('0 128 0 car\n7 8 9 big tree', ('car', 'big tree'), ((0, 128, 0), (7, 8, 9))),
        ('# label:color_rgb:parts:actions\ncar:1,2,3::\n', ('car',), ((1, 2, 3),)),
        ('name,r,g,b\nroad,4,5,6\nsky,7,8,9', ('road', 'sky'), ((4, 5, 6), (7, 8, 9))),
        (
            '64 128 64\tAnimal\n192 0 128\tArchway',
            ('Animal', 'Archway'),
            ((64, 128, 64), (192, 0, 128)),
        ),
        ('road 4 5 6\nsky 7 8 9', ('road', 'sky'), ((4, 5, 6), (7, 8, 9))),
        ('person\nspeed limit 30', ('person', 'speed limit 30'), None),
        ('grade 0\ngrade 1', ('grade 0', 'grade 1'), None),
        ('speed limit 30\nzone 20', ('speed limit 30', 'zone 20'), None),
        ('background\n1\n2', ('background', '1', '2'), None),
        ('A\nB\n0', ('A', 'B', '0'), None),
        ('2 wheeler\n4 wheeler', ('2 wheeler', '4 wheeler'), None),
        ('3 wheeler\n3 door car', ('3 wheeler', '3 door car'), None),
    ],
)
def test_lists_of_classes(text, names, colours):
    listed = parse_class_list(text)
    assert listed.names == names and listed.colours == colours


def test_list_with_values_of_pixels():
    listed = parse_class_list('Pixel Value, Class\n0, background\n4, cell\n')
    assert listed.names == ('background', 'cell') and listed.values == (0, 4)
    for text in ('0 background\n4 cell', 'background 0\ncell 4'):
        listed = parse_class_list(text)
        assert listed.names == ('background', 'cell') and listed.values == (0, 4)


def test_classes_on_the_command_line(tmp_path):
    assert read_class_list(['a,b', 'c']).names == ('a', 'b', 'c')
    (tmp_path / 'names').write_text('x\ny')
    assert read_class_list([str(tmp_path / 'names')]).names == ('x', 'y')
    with pytest.raises(UserError, match='a comes twice'):
        read_class_list(['a', 'a'])


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(UserError, match='not known. Did you mean caformer-s18'):
        choose_bases('caformer_s1', 'mask-rcnn')
    with pytest.raises(UserError, match='not known. Did you mean mask-rcnn'):
        choose_bases('caformer_s18', 'maskrcnn')
    with pytest.raises(UserError, match='nano is made for faster-rcnn, mask-rcnn, upernet'):
        choose_bases('caformer_nano', 'retinanet')


def test_weights_are_found_where_they_usually_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    bases = choose_bases('caformer-s18', 'mask-rcnn')
    found, source = weights_at_hand(bases)
    assert found is None and source.endswith('caformer_s18.pth')
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / 'caformer_s18.pth').touch()
    assert weights_at_hand(bases)[0] == 'checkpoints/caformer_s18.pth'
    bases.settings.backbone.init_cfg.type = PretrainedInit  # as a config of pure Python has it
    assert weights_at_hand(bases)[0] == 'checkpoints/caformer_s18.pth'
    downloaded = local_copy(source)
    downloaded.parent.mkdir(parents=True)
    downloaded.touch()
    assert weights_at_hand(bases)[0] == str(downloaded)


def test_weights_are_downloaded_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bases = choose_bases('caformer-s18', 'mask-rcnn')
    served = tmp_path / 'served'
    served.mkdir()
    (served / 'caformer_s18.pth').write_bytes(b'weights')
    with serving(served, tmp_path / 'hub', monkeypatch) as address:
        bases.settings.backbone.init_cfg.checkpoint = f'{address}/caformer_s18.pth'
        assert weights_at_hand(bases)[0] is None
        file = download_weights(bases)
        assert Path(file).read_bytes() == b'weights'
        assert weights_at_hand(bases)[0] == file
    assert download_weights(bases) == file  # the server is gone
    bases.settings.backbone.init_cfg.checkpoint = f'{address}/other.pth'
    with pytest.raises(UserError, match='could not be downloaded'):
        download_weights(bases)


@pytest.mark.parametrize(
    ('backbone', 'told'), [('sge-resnet50', 'sge_resnet50.pth.tar'), ('caformer-nano', 'nano')]
)
def test_weights_that_cannot_be_downloaded_are_told(backbone, told):
    with pytest.raises(UserError, match=f'nothing to download.*{told}'):
        download_weights(choose_bases(backbone, 'upernet'))


def test_every_backbone_has_a_head():
    for name in find_backbones():
        assert choose_bases(name, 'upernet').settings


def test_a_list_of_classes_that_is_no_text(tmp_path):
    (tmp_path / 'x.pth').write_bytes(b'PK\x80\x00')
    with pytest.raises(UserError, match=r'x\.pth is no text'):
        read_class_list([str(tmp_path / 'x.pth')])
