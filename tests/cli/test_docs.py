"""Every command and every program in the docs on own data, inference and export runs."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.cli import COMMANDS, main
from attnpool_backbones.datasets.digit_scenes import generate

ROOT = Path(__file__).resolve().parents[2]
# what makes a training take seconds; the last word on a flag counts
FAST = ['--epochs', '1', '--workers', '0', '--seed', '0']
NANO = ['--backbone', 'caformer-nano', '--size', '64', '--batch', '4']
# no weights of a nano size are published
NAMES = {
    'caformer-s18': 'caformer-nano', 'caformer_s18': 'caformer-nano', ' --weights download': '',
}  # fmt: skip


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / 'docs' / page).read_text()
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, 'bash') for line in block.splitlines()]
    assert lines and all(line.startswith('attnpool ') for line in lines)
    return lines


def quick(line: str) -> list[str]:
    """Turns a command of the docs into one of seconds, with nothing else changed."""
    for name, nano in NAMES.items():
        line = line.replace(name, nano)
    words = shlex.split(line)[1:]
    is_folder = len(words) > 1 and not words[1].endswith('.py')
    if words[0] == 'train':
        words = [w for w in words if w not in ('--time', '1h')] + FAST
        words += [*NANO, '--no-forecast'] if is_folder else []
    if words[0] == 'config':
        words += [*NANO, '--epochs', '1']
    return words


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with everything that the docs name."""
    root = tmp_path_factory.mktemp('docs')
    generate(root / 'scenes', train=10, val=4, size=(64, 64))
    from tests.own_data import scenes as written

    content = written.load_scenes(root / 'scenes')
    for number, scene in enumerate(content):
        scene.stem = f'scene{number // 2}_{scene.stem}'
    written.coco(content, root / 'photos', outlines=True)
    written.masks(root / 'scenes', root / 'streets', 'ids')
    shutil.copytree(root / 'scenes/images/validation', root / 'new_photos')
    image = cv2.imread(str(root / 'new_photos/000001.png'))
    cv2.imwrite(str(root / 'new_photos/a.png'), image)
    cv2.imwrite(str(root / 'large.png'), np.tile(image, (2, 3, 1)))
    video = cv2.VideoWriter(str(root / 'film.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (64, 64))
    for _ in range(3):
        video.write(image)
    video.release()
    labels = json.loads((root / 'photos/val_labels.json').read_text())
    labels['images'] = [
        dict(id=number, file_name=photo.name, width=64, height=64)
        for number, photo in enumerate(sorted((root / 'new_photos').iterdir()), 1)
    ]
    (root / 'labels.json').write_text(json.dumps(dict(labels, annotations=[])))
    return root


@pytest.mark.slow
def test_commands_of_all_pages(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    left_out = []
    for page in ('own_data.md', 'inference.md', 'export.md'):
        for line in commands(page):
            if page == 'export.md':
                pytest.importorskip('onnxscript')
            # lines that need more are left out alone, not all that come after them
            needed = 'sahi' if '--slice' in line else ''
            needed = 'openvino' if 'openvino' in line or '.xml' in line else needed
            if needed and importlib.util.find_spec(needed) is None:
                left_out.append(line)
                continue
            assert main(quick(line)) == 0, (line, capsys.readouterr())
    for path in (
        'work_dirs/photos_mask-rcnn_caformer-nano.py',
        'browse/contact_sheet.png',
        'browse/index.html',
        'predictions/coco_results.json',
        'predictions/label_maps/000001.png',
        'film_predictions/video.mp4',
        'from_file/predictions.jsonl',
        'photos_96x128.onnx',
        'photos_int8.onnx',
    ):
        assert (place / path).is_file(), path
    for page in ('inference.md', 'export.md'):
        for block in blocks(page, 'python'):
            exec(compile(block, page, 'exec'), {})
    if left_out:
        pytest.skip(f'all but these ran, for want of a library: {left_out}')


def test_every_command_is_documented():
    text = ''.join(page.read_text() for page in sorted((ROOT / 'docs').glob('*.md')))
    assert all(f'attnpool {name} ' in text or f'attnpool {name}\n' in text for name in COMMANDS)
