"""Masks as mmseg reads them: one channel of labels, and lists of the images of a split."""

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.own_data.folder import open_picture
from attnpool_backbones.own_data.labels import LabelMapPair, LabelMaps, problem
from attnpool_backbones.own_data.masks import pixel_values
from attnpool_backbones.own_data.objects_as_maps import label_map_of

__all__ = ['MapLayout', 'lay_out']


@dataclass(frozen=True)
class MapLayout:
    """How mmseg's ``BaseSegDataset`` finds the images and label maps of a split.

    Args:
        images: Folder of the images, relative to the data's.
        label_maps: Folder of the label maps; absolute where they were written.
        image_suffix: Ending of an image, what its label map does not share.
        map_suffix: Ending of a label map.
        listing: File that lists the images, None if they are all of the folder.
    """

    images: str
    label_maps: str
    image_suffix: str
    map_suffix: str
    listing: Path | None = None


def lay_out(
    labels: LabelMaps,
    folder: Path,
    write: Callable[[bytes, Path], None] = write_atomically,
) -> dict[str, list[MapLayout]]:
    """Describes each split; label maps are written only where the masks cannot be read as they are.

    Args:
        labels: Checked, with splits.
        folder: For lists and label maps. Where a list is needed, images whose names it cannot hold
            are left out and told as problems of the labels.
        write: Puts content into a file. Default:
            :func:`~attnpool_backbones.atomic_files.write_atomically`.

    Returns:
        By split one layout for each ending that its images have.
    """
    converted = _write_maps(labels, folder / 'label_maps', write)
    layouts: dict[str, list[MapLayout]] = {}
    for split in ('train', 'val', 'test'):
        pairs = [pair for pair in labels.pairs if pair.split == split]
        for suffix in sorted({PurePosixPath(pair.image).suffix for pair in pairs}):
            same = [pair for pair in pairs if PurePosixPath(pair.image).suffix == suffix]
            name = f'{split}.txt' if len({p.image[-4:] for p in pairs}) == 1 else (
                f'{split}_{suffix[1:]}.txt'
            )  # fmt: skip
            layout = _layout(labels, same, suffix, converted, folder / 'splits' / name, write)
            layouts.setdefault(split, []).append(layout)
    return layouts


def _write_maps(
    labels: LabelMaps, folder: Path, write: Callable[[bytes, Path], None]
) -> Path | None:
    """Writes a label map for each image, unless all masks can be read as they are."""
    if labels.objects is None and labels.values is None and _can_be_read(labels):
        return None
    for index, pair in enumerate(labels.pairs):
        if labels.objects is None:
            mapped = _mapped(labels.root / pair.label_map, labels.values, labels.by_palette)
        else:
            mapped = label_map_of(labels.objects[index], labels.classes)
        # with the image's ending: a.jpg and a.png are two images
        file = folder / f'{pair.image}.png'
        content = io.BytesIO()
        Image.fromarray(mapped).save(content, 'PNG')
        write(content.getvalue(), file)
    return folder.absolute()


def _mapped(path: Path, labels: Mapping[int, int] | None, by_palette: bool) -> np.ndarray:
    """Reads a mask, and puts labels in the place of values where these differ."""
    _, values = pixel_values(path, by_palette)
    mapped = np.full(values.shape, IGNORED, dtype=np.uint8)
    for value in np.unique(values).tolist():
        mapped[values == value] = labels.get(value, IGNORED) if labels is not None else value
    return mapped


def _can_be_read(labels: LabelMaps) -> bool:
    """Whether mmseg finds all masks beside their images, with the one channel that it wants."""
    masks = (labels.root / pair.label_map for pair in labels.pairs)
    return _is_regular(labels.pairs) and all(map(_has_one_channel, masks))


def _has_one_channel(mask: Path) -> bool:
    with open_picture(mask, math.inf) as picture:
        return len(picture.getbands()) == 1


def _is_regular(pairs: Sequence[LabelMapPair]) -> bool:
    """Whether of each split the paths of images and masks differ in a beginning and an ending."""
    for split in {pair.split for pair in pairs}:
        for suffix in {PurePosixPath(p.image).suffix for p in pairs if p.split == split}:
            same = [p for p in pairs if p.split == split and p.image.endswith(suffix)]
            if _common_form(same, suffix) is None:
                return False
    return True


def _common_form(pairs: Sequence[LabelMapPair], suffix: str) -> tuple[str, str, str] | None:
    """Finds folders of images and masks, and the ending of the masks, that fit all pairs."""
    images = _common_folder([pair.image for pair in pairs])
    maps = _common_folder([pair.label_map for pair in pairs])
    stem = _under(pairs[0].image, images).removesuffix(suffix)
    rest = _under(pairs[0].label_map, maps)
    if not rest.startswith(stem):
        return None
    ending = rest.removeprefix(stem)
    for pair in pairs:
        if _under(pair.label_map, maps) != (
            _under(pair.image, images).removesuffix(suffix) + ending
        ):
            return None
    return images, maps, ending


def _common_folder(files: Sequence[str]) -> str:
    return '/'.join(os.path.commonprefix([PurePosixPath(file).parts[:-1] for file in files]))


def _under(file: str, folder: str) -> str:
    return file[len(folder) + 1 :] if folder else file


def _layout(
    labels: LabelMaps,
    pairs: Sequence[LabelMapPair],
    suffix: str,
    converted: Path | None,
    listing: Path,
    write: Callable[[bytes, Path], None],
) -> MapLayout:
    if converted is None:
        images, maps, ending = _common_form(pairs, suffix)
    else:
        images, ending = _common_folder([pair.image for pair in pairs]), f'{suffix}.png'
        maps = (converted / images).as_posix()
    names = [_under(pair.image, images).removesuffix(suffix) for pair in pairs]
    there = labels.root / images
    whole = {
        path.relative_to(there).as_posix().removesuffix(suffix)
        for path in there.rglob(f'*{suffix}')
        if os.path.isfile(path)  # False also below folders that cannot be entered
    }
    if whole == set(names):
        return MapLayout(images, maps, suffix, ending)
    odd = {name for name in names if name != name.strip() or not {'\n', '\r'}.isdisjoint(name)}
    labels.problems += [
        problem('name that a list of images cannot hold', pair.image, 'rename it and its mask: '
                'there is a blank at an end, or a line break')
        for pair, name in zip(pairs, names, strict=True) if name in odd
    ]  # fmt: skip
    write(('\n'.join(name for name in names if name not in odd) + '\n').encode(), listing)
    return MapLayout(images, maps, suffix, ending, listing.absolute())
