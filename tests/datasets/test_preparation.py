"""Tiny archives in the official layout become data sets, or one message about all they lack."""

import io
import json
import shutil
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets import ade20k, coco2017, unpacking

COCO = dict(images=dict(train=3, val=2), classes=2)
ADE = dict(images=dict(training=3, validation=2), classes=4)


def picture(suffix: str, size: tuple[int, int] = (8, 6)) -> bytes:
    content = io.BytesIO()
    pixels = np.zeros(size[::-1], np.uint8)
    Image.fromarray(pixels).save(content, {'.jpg': 'JPEG', '.png': 'PNG'}[suffix])
    return content.getvalue()


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def coco_archives(folder: Path) -> None:
    annotations = {}
    for split, count in COCO['images'].items():
        names = [f'{i:012d}.jpg' for i in range(count)]
        write_zip(
            folder / f'{split}2017.zip', {f'{split}2017/{name}': picture('.jpg') for name in names}
        )
        annotations[f'annotations/instances_{split}2017.json'] = json.dumps(
            dict(
                images=[
                    dict(id=i, file_name=name, width=8, height=6) for i, name in enumerate(names)
                ],
                annotations=[],
                categories=[dict(id=1, name='person'), dict(id=3, name='car')],
            )
        ).encode()
    write_zip(folder / 'annotations_trainval2017.zip', annotations)


def ade_archive(folder: Path) -> None:
    top = 'ADEChallengeData2016'
    members = {f'{top}/objectInfo150.txt': b'Idx\tName\n1\twall\n2\tsky\n3\ttree\n4\troad\n'}
    for split, count in ADE['images'].items():
        for i in range(count):
            members[f'{top}/images/{split}/ADE_{i}.jpg'] = picture('.jpg')
            members[f'{top}/annotations/{split}/ADE_{i}.png'] = picture('.png')
    write_zip(folder / f'{top}.zip', members)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def test_coco(tmp_path):
    coco_archives(tmp_path / 'zips')
    seen = []
    root = tmp_path / 'coco'
    coco2017.prepare(tmp_path / 'zips', root, **COCO, progress=lambda *x: seen.append(x))
    assert files(root) == [
        'annotations/instances_train2017.json',
        'annotations/instances_val2017.json',
        'train2017/000000000000.jpg',
        'train2017/000000000001.jpg',
        'train2017/000000000002.jpg',
        'val2017/000000000000.jpg',
        'val2017/000000000001.jpg',
    ]
    assert len(seen) == 7 and seen[-1][0] == seen[-1][1]
    # a complete one needs no archives any more
    coco2017.prepare(tmp_path / 'nowhere', root, **COCO)


def test_ade(tmp_path):
    ade_archive(tmp_path / 'zips')
    ade20k.prepare(tmp_path / 'zips', tmp_path / 'ade', **ADE)
    assert len(files(tmp_path / 'ade' / 'ADEChallengeData2016')) == 11
    ade20k.prepare(tmp_path / 'nowhere', tmp_path / 'ade', **ADE)


def test_official_numbers_are_the_default(tmp_path):
    coco_archives(tmp_path)
    ade_archive(tmp_path)
    with pytest.raises(UserError, match='118287') as caught:
        coco2017.prepare(tmp_path, tmp_path / 'coco')
    assert '5000' in str(caught.value) and '2 classes, not 80' in str(caught.value)
    with pytest.raises(UserError, match='20210') as caught:
        ade20k.prepare(tmp_path, tmp_path / 'ade')
    assert '2000' in str(caught.value) and '4 classes, not 150' in str(caught.value)


def test_all_bad_archives_are_named_at_once(tmp_path):
    coco_archives(tmp_path)
    whole = (tmp_path / 'val2017.zip').read_bytes()
    (tmp_path / 'val2017.zip').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'train2017.zip').unlink()
    with pytest.raises(UserError) as caught:
        coco2017.prepare(tmp_path, tmp_path / 'coco', **COCO)
    message = str(caught.value)
    assert 'train2017.zip is missing' in message and 'val2017.zip is damaged' in message
    assert message.count('http://images.cocodataset.org/zips/') == 2
    assert 'annotations_trainval2017.zip' not in message
    assert not (tmp_path / 'coco').exists()


def test_all_that_is_missing_is_named_at_once(tmp_path):
    coco_archives(tmp_path / 'zips')
    root = tmp_path / 'coco'
    coco2017.prepare(tmp_path / 'zips', root, **COCO)
    for split in COCO['images']:
        file = root / 'annotations' / f'instances_{split}2017.json'
        content = json.loads(file.read_text())
        content['images'].append(dict(id=99, file_name='absent.jpg', width=8, height=6))
        file.write_text(json.dumps(content))
        (root / f'{split}2017' / 'stray.jpg').write_bytes(picture('.jpg'))
    with pytest.raises(UserError) as caught:
        coco2017.prepare(tmp_path / 'zips', root, **COCO)
    message = str(caught.value)
    assert message.count('absent.jpg') == message.count('stray.jpg') == 2
    assert 'lists 4 images, not 3' in message and 'lists 3 images, not 2' in message

    ade_archive(tmp_path / 'zips')
    ade20k.prepare(tmp_path / 'zips', tmp_path / 'ade', **ADE)
    images = tmp_path / 'ade' / 'ADEChallengeData2016' / 'images'
    (images / 'training' / 'alone.jpg').write_bytes(picture('.jpg'))
    with pytest.raises(UserError) as caught:
        ade20k.prepare(tmp_path / 'zips', tmp_path / 'ade', **ADE)
    assert 'has 4 .jpg files, not 3' in str(caught.value)
    assert '1 images of training have no file in annotations: alone' in str(caught.value)


def test_an_interrupted_call_is_continued(tmp_path, monkeypatch):
    ade_archive(tmp_path)
    root = tmp_path / 'ade'
    copy, copied = unpacking.shutil.copyfileobj, []

    def interrupted(source, target, chunk) -> None:
        if len(copied) == 4:
            target.write(source.read(5))
            raise KeyboardInterrupt
        copied.append(target.name)
        copy(source, target, chunk)

    monkeypatch.setattr(unpacking.shutil, 'copyfileobj', interrupted)
    with pytest.raises(KeyboardInterrupt):
        ade20k.prepare(tmp_path, root, **ADE)
    assert not (root / 'ADEChallengeData2016').exists()

    monkeypatch.setattr(
        unpacking.shutil, 'copyfileobj', lambda *args: (copied.append(args[1].name), copy(*args))
    )
    ade20k.prepare(tmp_path, root, **ADE)
    # each of the eleven files was written once, the cut-off one twice
    assert len(copied) == 11 == len(set(copied))
    assert len(files(root)) == 11 and not list(root.rglob('*.part'))


def test_files_that_an_existing_folder_lacks_are_added(tmp_path):
    coco_archives(tmp_path / 'zips')
    root = tmp_path / 'coco'
    coco2017.prepare(tmp_path / 'zips', root, **COCO)
    kept, removed = (root / 'train2017' / f'{i:012d}.jpg' for i in (0, 1))
    before = kept.stat().st_mtime_ns
    removed.unlink()
    with pytest.raises(UserError) as caught:
        coco2017.prepare(tmp_path / 'nowhere', root, **COCO)
    assert 'train2017.zip is missing' in str(caught.value) and removed.name in str(caught.value)
    assert 'val2017.zip' not in str(caught.value)
    coco2017.prepare(tmp_path / 'zips', root, **COCO)
    assert removed.read_bytes() == picture('.jpg') and kept.stat().st_mtime_ns == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def blank(path: Path) -> None:
    # of the right size, as a crash of the machine leaves it
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b'')


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to('nowhere')


# data set -> the files that can be damaged, how, and the archive that has them
DAMAGE = [
    ('coco', 'annotations/instances_train2017.json', cut, 'annotations_trainval2017.zip'),
    ('coco', 'annotations/instances_train2017.json', blank, 'annotations_trainval2017.zip'),
    ('coco', 'annotations/instances_val2017.json', empty, 'annotations_trainval2017.zip'),
    ('coco', 'train2017/000000000001.jpg', empty, 'train2017.zip'),
    ('coco', 'val2017/000000000000.jpg', dangle, 'val2017.zip'),
    ('ade', 'images/training/ADE_1.jpg', empty, 'ADEChallengeData2016.zip'),
    ('ade', 'annotations/validation/ADE_0.png', empty, 'ADEChallengeData2016.zip'),
    ('ade', 'objectInfo150.txt', cut, 'ADEChallengeData2016.zip'),
    ('ade', 'objectInfo150.txt', blank, 'ADEChallengeData2016.zip'),
]


@pytest.mark.parametrize(
    ('name', 'file', 'damage', 'archive'), DAMAGE, ids=lambda x: getattr(x, '__name__', str(x))
)
def test_damaged_files_are_named_and_repaired(name, file, damage, archive, tmp_path):
    pack, prepare, expected, folder = {
        'coco': (coco_archives, coco2017.prepare, COCO, ''),
        'ade': (ade_archive, ade20k.prepare, ADE, 'ADEChallengeData2016'),
    }[name]
    pack(tmp_path / 'zips')
    root = tmp_path / name
    prepare(tmp_path / 'zips', root, **expected)
    before = {path: (root / path).read_bytes() for path in files(root)}
    damaged = root / folder / file
    damage(damaged)
    with pytest.raises(UserError) as caught:
        prepare(tmp_path / 'nowhere', root, **expected)
    message = str(caught.value)
    assert message.count('download it') == 1 and f'{archive} is missing' in message
    assert damaged.name in message and str(damaged.parent) in message
    prepare(tmp_path / 'zips', root, **expected)
    assert {path: (root / path).read_bytes() for path in files(root)} == before
    prepare(tmp_path / 'nowhere', root, **expected)


# no COCO file, but JSON
CONTENTS = [
    '[]',
    '{"images": 1}',
    '{"images": [1], "categories": []}',
    '{"images": [{"file_name": []}], "categories": []}',
]


@pytest.mark.parametrize('content', CONTENTS)
def test_an_archive_can_be_damaged_inside(content, tmp_path):
    coco_archives(tmp_path / 'zips')
    annotations = {f'annotations/instances_{s}2017.json': content.encode() for s in COCO['images']}
    write_zip(tmp_path / 'zips' / 'annotations_trainval2017.zip', annotations)
    with pytest.raises(UserError) as caught:
        coco2017.prepare(tmp_path / 'zips', tmp_path / 'coco', **COCO)
    for split in COCO['images']:
        assert f'instances_{split}2017.json is damaged' in str(caught.value)


def test_a_member_that_cannot_be_inflated_is_named(tmp_path):
    path, name = tmp_path / 'some.zip', 'some/noise.bin'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    content[30 + len(name)] = 7  # a kind of block that does not exist
    path.write_bytes(content)
    opened = unpacking.open_archives(tmp_path, [unpacking.Archive('some.zip', 'some', 'there')])
    with pytest.raises(UserError, match=r'some/noise\.bin cannot be unpacked from .*some\.zip'):
        unpacking.unpack(opened, tmp_path / 'data')
    assert files(tmp_path / 'data') == []


def test_what_is_there_in_part_is_named_with_its_archive(tmp_path):
    coco_archives(tmp_path / 'zips')
    root = tmp_path / 'coco'
    coco2017.prepare(tmp_path / 'zips', root, **COCO)
    shutil.rmtree(root / 'train2017')
    (root / 'val2017' / 'stray.jpg').write_bytes(picture('.jpg'))
    with pytest.raises(UserError) as caught:
        coco2017.prepare(tmp_path / 'nowhere', root, **COCO)
    message = str(caught.value)
    # what is not there at all need not be told file by file
    assert 'train2017.zip is missing' in message and 'lacks' not in message
    assert 'stray.jpg' in message


@pytest.mark.parametrize(
    'name',
    [
        '../outside.jpg',
        'ADEChallengeData2016/../../outside.jpg',
        '/tmp/outside.jpg',
        'ADEChallengeData2016\\..\\..\\outside.jpg',
        'elsewhere/outside.jpg',
    ],
)
def test_nothing_is_written_elsewhere(name, tmp_path):
    ade_archive(tmp_path)
    with zipfile.ZipFile(tmp_path / 'ADEChallengeData2016.zip', 'a') as archive:
        archive.writestr(zipfile.ZipInfo(name), b'')
    with pytest.raises(UserError, match='not the official archive') as caught:
        ade20k.prepare(tmp_path, tmp_path / 'ade', **ADE)
    assert 'outside.jpg' in str(caught.value)
    assert not (tmp_path / 'ade').exists()


def test_links_in_archives_are_refused(tmp_path):
    ade_archive(tmp_path)
    link = zipfile.ZipInfo('ADEChallengeData2016/link')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / 'ADEChallengeData2016.zip', 'a') as archive:
        archive.writestr(link, '/etc')
    with pytest.raises(UserError, match='not the official archive'):
        ade20k.prepare(tmp_path, tmp_path / 'ade', **ADE)


def test_a_damaged_member_is_named(tmp_path):
    ade_archive(tmp_path)
    file = tmp_path / 'ADEChallengeData2016.zip'
    content = file.read_bytes()
    file.write_bytes(content.replace(b'\twall\n', b'\twalk\n', 1))
    with pytest.raises(UserError, match='objectInfo150.txt cannot be unpacked'):
        ade20k.prepare(tmp_path, tmp_path / 'ade', **ADE)
    assert not list((tmp_path / 'ade').rglob('*.part'))


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    ade_archive(tmp_path)
    usage = unpacking.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(unpacking.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(UserError, match='free space'):
        ade20k.prepare(tmp_path, tmp_path / 'ade', **ADE)
    assert files(tmp_path / 'ade') == []
