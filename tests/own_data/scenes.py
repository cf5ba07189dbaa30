"""Digit scenes written in every format that is read, by writers that share no code with readers."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from attnpool_backbones.datasets.digit_scenes import CLASSES, PALETTE

SPLITS = {'train': 'training', 'val': 'validation'}
COLOURS = ((120, 120, 120), *map(tuple, PALETTE))
"""Of the labels: other, and the ten digits."""


@dataclass
class Object:
    """A digit: its box in whole pixels, and its outline."""

    name: str
    box: list[int]
    outline: list[int]


@dataclass
class Scene:
    """An image of the digit scenes."""

    stem: str
    split: str
    image: Path
    width: int
    height: int
    objects: list[Object] = field(default_factory=list)


def load_scenes(root: Path) -> list[Scene]:
    """Reads what the generator wrote; stems say the split, since both count from 1."""
    scenes = []
    for split, folder in SPLITS.items():
        content = json.loads((root / 'annotations' / f'instances_{split}.json').read_text())
        for image in content['images']:
            file = root / 'images' / folder / image['file_name']
            scene = Scene(f'{split}_{file.stem}', split, file, image['width'], image['height'])
            for annotation in content['annotations']:
                if annotation['image_id'] == image['id']:
                    outline = outline_of(annotation['segmentation'])
                    xs, ys = outline[0::2], outline[1::2]
                    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
                    name = CLASSES[annotation['category_id'] - 1]
                    scene.objects.append(Object(name, box, outline))
            scenes.append(scene)
    return scenes


def outline_of(runs: dict) -> list[int]:
    """Draws a polygon around the largest part of a mask."""
    mask = coco_mask.decode(runs)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(contours, key=len).reshape(-1).tolist()


def coco(scenes: Sequence[Scene], root: Path, outlines: bool) -> None:
    for split in SPLITS:
        images, annotations = [], []
        for scene in (scene for scene in scenes if scene.split == split):
            place(scene, root / 'photos' / f'{scene.stem}.png')
            images.append(dict(id=len(images) + 5, file_name=f'{scene.stem}.png',
                               width=scene.width, height=scene.height))  # fmt: skip
            for item in scene.objects:
                width, height = item.box[2:]
                entry = dict(
                    id=len(annotations) + 1,
                    image_id=images[-1]['id'],
                    category_id=CLASSES.index(item.name) + 11,
                    bbox=item.box,
                    area=width * height,
                    iscrowd=0,
                )
                if outlines:
                    coded = coco_mask.frPyObjects([item.outline], scene.height, scene.width)
                    entry['segmentation'] = [item.outline]
                    entry['area'] = int(coco_mask.area(coded)[0])
                annotations.append(entry)
        categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 11)]
        write_json(root / f'{split}_labels.json', dict(images=images, annotations=annotations,
                                                       categories=categories))  # fmt: skip


def yolo(scenes: Sequence[Scene], root: Path, outlines: bool) -> None:
    for scene in scenes:
        place(scene, root / 'images' / scene.split / f'{scene.stem}.png')
        lines = []
        for item in scene.objects:
            label, sides = CLASSES.index(item.name), (scene.width, scene.height)
            if outlines:
                pairs = zip(item.outline, sides * (len(item.outline) // 2), strict=True)
                shares = [value / side for value, side in pairs]
            else:
                left, top, width, height = item.box
                shares = [(left + width / 2) / sides[0], (top + height / 2) / sides[1],
                          width / sides[0], height / sides[1]]  # fmt: skip
            lines.append(' '.join([str(label), *(f'{share:.6f}' for share in shares)]))
        write(root / 'labels' / scene.split / f'{scene.stem}.txt', '\n'.join(lines))
    description = dict(path='.', train='images/train', val='images/val', names=list(CLASSES))
    write(root / 'data.yaml', yaml.safe_dump(description))


def voc(scenes: Sequence[Scene], root: Path, outlines: bool) -> None:
    assert not outlines
    for scene in scenes:
        place(scene, root / 'JPEGImages' / f'{scene.stem}.png')
        tree = ElementTree.Element('annotation')
        ElementTree.SubElement(tree, 'filename').text = f'{scene.stem}.png'
        size = ElementTree.SubElement(tree, 'size')
        for side in ('width', 'height'):
            ElementTree.SubElement(size, side).text = str(getattr(scene, side))
        for item in scene.objects:
            left, top, width, height = item.box
            entry = ElementTree.SubElement(tree, 'object')
            ElementTree.SubElement(entry, 'name').text = item.name
            box = ElementTree.SubElement(entry, 'bndbox')
            edges = dict(xmin=left + 1, ymin=top + 1, xmax=left + width, ymax=top + height)
            for key, value in edges.items():
                ElementTree.SubElement(box, key).text = str(value)
        write(root / 'Annotations' / f'{scene.stem}.xml', ElementTree.tostring(tree, 'unicode'))
    for split in SPLITS:
        names = [scene.stem for scene in scenes if scene.split == split]
        write(root / 'ImageSets' / 'Main' / f'{split}.txt', '\n'.join(names))


def labelme(scenes: Sequence[Scene], root: Path, outlines: bool) -> None:
    for scene in scenes:
        image = root / scene.split / f'{scene.stem}.png'
        place(scene, image)
        shapes = []
        for item in scene.objects:
            left, top, width, height = item.box
            points = [[left, top], [left + width, top + height]]
            if outlines:
                points = np.reshape(item.outline, (-1, 2)).tolist()
            kind = 'polygon' if outlines else 'rectangle'
            shapes.append(dict(label=item.name, points=points, group_id=None, shape_type=kind))
        size = dict(imageHeight=scene.height, imageWidth=scene.width)
        content = dict(version='5.4.1', shapes=shapes, imagePath=image.name, imageData=None, **size)
        write_json(image.with_suffix('.json'), content)


def via(scenes: Sequence[Scene], root: Path, outlines: bool) -> None:
    entries = {}
    for scene in scenes:
        image = root / scene.split / f'{scene.stem}.png'
        place(scene, image)
        regions = []
        for item in scene.objects:
            left, top, width, height = item.box
            shape = dict(name='rect', x=left, y=top, width=width, height=height)
            if outlines:
                xs, ys = item.outline[0::2], item.outline[1::2]
                shape = dict(name='polygon', all_points_x=xs, all_points_y=ys)
            regions.append(dict(shape_attributes=shape, region_attributes=dict(digit=item.name)))
        size = image.stat().st_size
        entries[f'{image.name}{size}'] = dict(
            filename=image.name, size=size, regions=regions, file_attributes={}
        )
    write_json(root / 'via_export.json', entries)


def cvat(scenes: Sequence[Scene], root: Path, outlines: bool) -> None:
    tree = ElementTree.Element('annotations')
    labels = ElementTree.SubElement(tree, 'meta')
    for part in ('task', 'labels'):
        labels = ElementTree.SubElement(labels, part)
    for name in CLASSES:
        ElementTree.SubElement(ElementTree.SubElement(labels, 'label'), 'name').text = name
    for scene in scenes:
        place(scene, root / 'images' / f'{scene.stem}.png')
        size = dict(width=str(scene.width), height=str(scene.height))
        told = dict(name=f'{scene.stem}.png', subset=scene.split, **size)
        entry = ElementTree.SubElement(tree, 'image', told)
        for item in scene.objects:
            left, top, width, height = item.box
            if outlines:
                points = np.reshape(item.outline, (-1, 2)).tolist()
                text = ';'.join(f'{x:.2f},{y:.2f}' for x, y in points)
                ElementTree.SubElement(entry, 'polygon', label=item.name, points=text)
                continue
            edges = dict(xtl=left, ytl=top, xbr=left + width, ybr=top + height)
            ElementTree.SubElement(entry, 'box', {'label': item.name} | {
                key: f'{value:.2f}' for key, value in edges.items()})  # fmt: skip
    write(root / 'annotations.xml', ElementTree.tostring(tree, 'unicode'))


def cvat_video(scenes: Sequence[Scene], root: Path, outlines: bool) -> None:
    """Writes scenes as the frames of a video; each object is a track that ends after its frame."""
    tree = ElementTree.Element('annotations')
    task = ElementTree.SubElement(ElementTree.SubElement(tree, 'meta'), 'task')
    ElementTree.SubElement(task, 'start_frame').text = '0'
    ElementTree.SubElement(task, 'stop_frame').text = str(len(scenes) - 1)
    labels = ElementTree.SubElement(task, 'labels')
    for name in CLASSES:
        ElementTree.SubElement(ElementTree.SubElement(labels, 'label'), 'name').text = name
    count = 0
    for frame, scene in enumerate(scenes):
        place(scene, root / scene.split / f'frame_{frame:06d}.png')
        for item in scene.objects:
            track = ElementTree.SubElement(tree, 'track', {'id': str(count), 'label': item.name})
            count += 1
            left, top, width, height = item.box
            edges = dict(xtl=left, ytl=top, xbr=left + width, ybr=top + height)
            fields = {key: f'{value:.2f}' for key, value in edges.items()}
            kind = 'box'
            if outlines:
                points = np.reshape(item.outline, (-1, 2)).tolist()
                kind, fields = (
                    'polygon',
                    {'points': ';'.join(f'{x:.2f},{y:.2f}' for x, y in points)},
                )
            for number, outside in ((frame, '0'), (frame + 1, '1')):
                told = {'frame': str(number), 'outside': outside, 'keyframe': '1'}
                ElementTree.SubElement(track, kind, told | fields)
    write(root / 'annotations.xml', ElementTree.tostring(tree, 'unicode'))


WRITERS: dict[str, Callable[[Sequence[Scene], Path, bool], None]] = dict(
    coco=coco, yolo=yolo, voc=voc, labelme=labelme, via=via, cvat=cvat
)


def masks(source: Path, root: Path, kind: str) -> None:
    """Writes the label maps of the digit scenes as masks.

    ``ids`` as they are; ``colours`` with a list of classes; ``bare colours`` without one;
    ``beside``: ids beside the images, named ``_mask``; ``grey``: ids in three channels.
    """
    for folder in SPLITS.values():
        for file in sorted((source / 'images' / folder).glob('*.png')):
            labels = np.asarray(Image.open(source / 'annotations' / folder / file.name))
            image, mask = root / folder / 'images' / file.name, root / folder / 'masks' / file.name
            if kind == 'beside':
                image = root / folder / file.name
                mask = root / folder / f'{file.stem}_mask.png'
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, image)
            if 'colours' in kind:
                labels = np.array(COLOURS, np.uint8)[labels]
            elif kind == 'grey':
                labels = np.stack([labels] * 3, axis=-1)
            Image.fromarray(labels).save(mask)
    names = ('other', *CLASSES)
    if kind == 'colours':
        lines = [f'{name},{r},{g},{b}' for name, (r, g, b) in zip(names, COLOURS, strict=True)]
        write(root / 'classes.txt', '\n'.join(lines))
    elif kind != 'bare colours':
        write(root / 'classes.txt', '\n'.join(names))


def place(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(scene.image, path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_json(path: Path, content: dict) -> None:
    write(path, json.dumps(content))


def replaced(path: Path, old: str, new: str) -> None:
    """Changes the first place of a file that has a text."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
