"""The quickstart's table and pictures, and their places in the docs."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets import digit_scenes
from attnpool_backbones.experiments import digit_training, quickstart
from attnpool_backbones.experiments.quickstart import GALLERY, PICTURES, Result, cells, table
from attnpool_backbones.experiments.quickstart_pages import CAPTIONS, publish, published

RESULT = Result(
    name='detection',
    model='MaskRCNN PatchConvNet-nano',
    metrics={'bbox mAP': 61.25, 'segm mAP': 50.0},
    parameters=1_234_567,
    macs=2_500_000_000,
    minutes=4.04,
    memory=900.0,
    command='python tools/test.py',
)


def test_table():
    lines = table([RESULT]).splitlines()
    assert len(lines) == 3
    assert lines[2] == (
        '| detection | MaskRCNN PatchConvNet-nano | bbox mAP **61.2**, segm mAP **50.0** '
        '| 1.23 M | 2.50 G | 4.0 |'
    )


def test_the_command_prints_the_rows_of_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quickstart, 'run', lambda *_: [RESULT])
    monkeypatch.setenv('COLUMNS', '200')
    assert main(['quickstart', '--work-dir', str(tmp_path / 'run')]) == 0
    printed = capsys.readouterr().out
    for text in (*quickstart.COLUMNS, *cells(RESULT, emphasis=''), RESULT.command):
        assert text in printed
    assert '*' not in printed


@pytest.mark.slow
def test_the_whole_quickstart_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    load_config, pretrain = digit_training.load_config, quickstart.pretrain_backbone

    def short_config(*args, **options):
        cfg = load_config(*args, **options)
        for split in ('train', 'val'):
            loader = cfg[f'{split}_dataloader']
            loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        if cfg.default_scope == 'mmdet':
            cfg.train_cfg.max_epochs = 1
            # else there may be no box, and no metric
            cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
        else:
            cfg.train_cfg.max_iters = 2
        return cfg

    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, 'step', lambda *a: steps.append(1) or step(*a))
    monkeypatch.setattr(digit_training, 'load_config', short_config)
    monkeypatch.setattr(
        quickstart, 'pretrain_backbone', lambda *args, **_: pretrain(*args, steps=20)
    )
    monkeypatch.setattr(quickstart, 'PROBE_EPOCHS', 1)
    few = partial(digit_scenes.generate, train=8, val=6)
    monkeypatch.setattr(digit_scenes, 'generate', few)
    monkeypatch.chdir(tmp_path)

    assert main(['quickstart', '--work-dir', 'run']) == 0
    capsys.readouterr()
    results = (tmp_path / 'run' / 'results.md').read_text()
    names = [line.split('|')[1].strip() for line in results.splitlines()[2:]]
    assert names == [
        'detection', 'segmentation', 'frozen maps: attention pooling',
        'frozen maps: average pooling', 'frozen maps: average pooling', 'pretraining',
    ]  # fmt: skip
    for name in PICTURES:
        with Image.open(tmp_path / 'run' / name) as picture:
            assert min(picture.size) > 100
    trained = len(steps)
    assert trained > 20 * 4

    assert main(['quickstart', '--work-dir', 'run']) == 0
    assert len(steps) == trained
    assert 'detection: trained and evaluated before (run/detection)' in capsys.readouterr().out
    assert (tmp_path / 'run' / 'results.md').read_text() == results


def test_poolings_are_compared_on_the_checkpoint_that_is_there(tmp_path, monkeypatch):
    maps = SimpleNamespace(maps=torch.zeros(1, 4, 2, 2))
    trained = []

    def train(*_, **__):
        trained.append(1)
        return torch.nn.Conv2d(4, 2, 1)

    monkeypatch.setattr(quickstart, 'collect_maps', lambda *_, **__: maps)
    monkeypatch.setattr(quickstart, 'train_probe', train)
    monkeypatch.setattr(quickstart, 'evaluate_probe', lambda *_: {'tags/mAP': len(trained) / 100})
    loader = SimpleNamespace(sampler=SimpleNamespace(set_epoch=lambda _: None))
    runner = SimpleNamespace(model=None, train_dataloader=loader, val_dataloader=loader)
    folder = tmp_path / 'detection'
    folder.mkdir()
    (tmp_path / 'probes.json').write_text('[]')  # of an earlier version
    seen = []
    for value in (0.0, 1.0):
        training = dict(meta=dict(epoch=3, iter=9), state_dict=dict(w=torch.full((1,), value)),
                        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
                        optimizer={})  # fmt: skip
        torch.save(training, folder / 'epoch_3.pth')
        (folder / 'last_checkpoint').write_text('epoch_3.pth')
        first, again = (quickstart.probe_pooling(runner, tmp_path, print) for _ in range(2))
        assert first == again
        seen.append(first)
    assert len(trained) == 2 * len(quickstart.POOLINGS) and seen[0] != seen[1]


def test_publish_replaces_only_its_sections(tmp_path):
    work_dir, folder = tmp_path / 'work', tmp_path / 'docs' / 'quickstart'
    work_dir.mkdir()
    folder.mkdir(parents=True)
    (work_dir / 'results.md').write_text(table([RESULT]))
    for name in PICTURES:
        Image.new('RGB', (1800, 300), 'red').save(work_dir / name)
    readme, page = tmp_path / 'README.md', folder / 'README.md'
    readme.write_text(
        'a\n<!-- gallery -->\nold\n<!-- /gallery -->\nb\n'
        '<!-- quickstart -->\nold\n<!-- /quickstart -->\nc\n'
    )
    page.write_text('a\n<!-- pictures -->\nold\n<!-- /pictures -->\nb\n')
    (folder / 'attention.png').touch()
    for _ in range(2):
        publish(work_dir, tmp_path)
        text = readme.read_text()
        assert text.startswith('a\n<!-- gallery -->\n| | |\n') and 'old' not in text
        assert text.endswith(f'b\n<!-- quickstart -->\n{table([RESULT])}<!-- /quickstart -->\nc\n')
        for file, folder_of_links in ((readme, tmp_path), (page, folder)):
            links = re.findall(r'\]\(([^)]*[.]jpg)\)', file.read_text())
            assert len(links) == len(PICTURES) == 6
            assert all((folder_of_links / link).is_file() for link in links)
    assert sorted(path.suffix for path in folder.iterdir()) == ['.jpg'] * 6 + ['.md']
    with Image.open(folder / 'pooling.jpg') as picture:
        assert picture.size == (1200, 200)
    readme.write_text('no place')
    with pytest.raises(UserError, match='lacks the lines'):
        publish(work_dir, tmp_path)


def test_the_docs_have_the_places(repo_root):
    text = (repo_root / 'README.md').read_text()
    page = (repo_root / 'docs' / 'quickstart' / 'README.md').read_text()
    for content, name in ((text, 'quickstart'), (text, 'gallery'), (page, 'pictures')):
        assert content.index(f'<!-- {name} -->') < content.index(f'<!-- /{name} -->')
    for link in re.findall(r'\]\((docs/quickstart/[^)]*[.](?:png|jpg))\)', text):
        assert (repo_root / link).is_file()


def test_every_picture_has_a_caption_and_a_model():
    assert {f'{name}.png' for name in CAPTIONS} == set(PICTURES)
    assert {published(name) for name in PICTURES} == {f'{name}.jpg' for name in CAPTIONS}
    from attnpool_backbones.registry import MODELS

    for model, _, _ in GALLERY.values():
        family, colon, arch = model.partition(':')
        assert not colon or arch in MODELS.get(f'attnpool_backbones.{family}').archs
