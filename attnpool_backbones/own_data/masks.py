"""Folders of masks: for each image a picture whose pixels are class ids or colours."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.own_data.cityscapes import class_list, without_other_pictures
from attnpool_backbones.own_data.class_lists import (
    IGNORED_NAMES,
    ClassList,
    find_class_lists,
    lists_differ,
    lost_letters,
)
from attnpool_backbones.own_data.folder import (
    IMAGE_FOLDER,
    MASK_FOLDER,
    Folder,
    is_in_mask_folder,
    open_picture,
    spelt_alike,
    split_of_path,
)
from attnpool_backbones.own_data.image_sets import leave_rest, note_left_out, read_image_sets
from attnpool_backbones.own_data.labels import LabelMapPair, LabelMaps, problem
from attnpool_backbones.own_data.palettes import (
    colour_numbers,
    differing_palettes,
    have_own_orders,
    ignored_colours,
    is_shade,
    palette_of,
)

__all__ = ['NAME', 'find', 'pixel_values', 'read']

NAME = 'masks'
MOST_COLOURS = 256
"""More are no classes but the mixed colours of a file that was scaled or saved as JPEG."""
MOST_GREYS = 32
"""The same of grey masks that no list of classes goes with."""
NOISE = 16
"""By how much JPEG changes most values of a black and white mask."""
NEARLY_ALL = 0.95
MOST_COUNTED = 2**16 - 1
"""Largest value up to which the pixels of each value are counted in a table."""
JPEG = ('.jpg', '.jpeg')
SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.gif', *JPEG)
Pixels = dict[int, int]
"""How many pixels have a value."""
_MASK_STEM = re.compile(
    r'(.+?)[_-](masks?|labels?|gt|seg|segmentation|L|annotation|gt(?:Fine|Coarse)_label(?:Train)?Ids)$'
)
_IMAGE_END = '_leftImg8bit'  # of Cityscapes


def find(folder: Folder, by_name: bool = False) -> list[tuple[str, str]]:
    """Pairs images with masks: by a folder for masks, or by a word after their names.

    Args:
        folder: The folder.
        by_name: Pairs files of folders that have nothing else in common, too, which pictures of
            another purpose may be: a last resort.

    Returns:
        Image and mask of each pair; a mask without an image has ``''``, an image with several
        masks comes several times.
    """
    images: dict[tuple[str, ...], str] = {}
    masks: Mapping[tuple[str, ...], list[str]] = defaultdict(list)
    with_word: Mapping[tuple[str, ...], list[str]] = defaultdict(list)
    all_masks = set()
    perhaps_images = []
    for file in without_other_pictures(_without_object_masks(folder.images)):
        path = PurePosixPath(file)
        in_folder = is_in_mask_folder(file)
        by_stem = _MASK_STEM.match(path.stem)
        if not ((in_folder or by_stem) and file.lower().endswith(SUFFIXES)):
            images[_key(path.parts[:-1], path.stem)] = file
            continue
        all_masks.add(file)
        # a word after the name may be part of it where the folder tells
        if in_folder:
            masks[_key(path.parts[:-1], path.stem)].append(file)
        if by_stem:
            bare = _key(path.parts[:-1], by_stem[1])
            with_word[bare].append(file)
            if not in_folder:
                perhaps_images.append((file, _key(path.parts[:-1], path.stem), bare))
    for file, key, bare in perhaps_images:
        # with a mask of its own it is a photo, as the left one of two cameras: a_L.png
        if (key in masks or key in with_word) and (bare not in images or bare in masks):
            images[key] = file
            all_masks.discard(file)
    pairs = [
        (image, mask)
        for key, image in images.items()
        for mask in masks.get(key) or with_word.get(key, ())
    ]
    if by_name and not pairs:
        pairs = _paired_by_name(images, masks, with_word)
    if not pairs:
        return []
    return sorted(pairs) + [('', mask) for mask in sorted(all_masks - {mask for _, mask in pairs})]


def _paired_by_name(
    images: Mapping[tuple[str, ...], str], *masks: Mapping[tuple[str, ...], list[str]]
) -> list[tuple[str, str]]:
    """Pairs files of folders that have nothing in common, if a name is there once of each kind.

    Where a folder says a split, the other one says no other.

    Args:
        images: By what they have in common with their masks, the last of which is the name.
        *masks: The same; the first ones come first.
    """
    by_name = {key[-1]: image for key, image in images.items()}
    if len(by_name) < len(images):
        return []
    pairs: dict[str, str] = {}
    for found in masks:
        there = [(key[-1], mask) for key, files in found.items() for mask in files]
        there = [(name, mask) for name, mask in there if name in by_name and name not in pairs]
        if len({name for name, _ in there}) < len(there):
            return []
        pairs.update(there)
    for name, mask in pairs.items():
        if len({split_of_path(mask), split_of_path(by_name[name])} - {None}) > 1:
            return []
    return [(by_name[name], mask) for name, mask in pairs.items()]


def _without_object_masks(files: Sequence[str]) -> list[str]:
    """Leaves out Pascal VOC's masks of single objects where there are those of classes.

    So are pictures of the masks, as labelme's converter draws them.
    """
    folders = {file: file.lower().split('/')[:-1] for file in files}

    def is_below(file: str, start: str) -> bool:
        return any(folder.startswith(start) for folder in folders[file])

    kept = [
        file
        for file in files
        if not is_below(file, 'segmentationobject')
        and not is_below(file, 'segmentationclassvisualization')
    ]
    return kept if any(is_below(file, 'segmentationclass') for file in kept) else list(files)


def _key(folders: Sequence[str], stem: str) -> tuple[str, ...]:
    """What an image and its mask have in common."""
    kept = []
    for part in folders:
        word = MASK_FOLDER.match(part)
        if word:
            kept += [word['split'].lower()] if word['split'] else []
        elif not IMAGE_FOLDER.match(part):
            kept.append(part.lower())
    return tuple(map(spelt_alike, (*kept, stem.removesuffix(_IMAGE_END))))


def _class_list(folder: Folder, labels: LabelMaps) -> ClassList | None:
    """Returns the folder's list; lists of other file names may say less, those of one may not."""
    lists = find_class_lists(folder)
    if not lists:
        return None
    first, *others = lists
    labels.problems += lost_letters(first, lists[first].names)
    name = PurePosixPath(first).name.lower()
    for file in others:
        if PurePosixPath(file).name.lower() == name and lists[file] != lists[first]:
            labels.problems.append(lists_differ(first, file))
            break
    return lists[first]


def read(
    folder: Folder,
    pairs: Iterable[tuple[str, str]],
    classes: ClassList | None = None,
    ignored: Sequence[int] = (),
) -> LabelMaps:
    """Reads all masks once to learn which values they have.

    Args:
        folder: The folder.
        pairs: Image and mask of each pair.
        classes: Names of the classes, None for those that the folder has a list of.
        ignored: Values of pixels that belong to no class, beside 255.
    """
    labels = LabelMaps(folder.root, NAME, [])
    values: dict[str, Pixels] = {}
    kind_of: dict[str, str] = {}
    palettes: dict[str, dict[int, int]] = {}
    masks: Mapping[str, list[str]] = defaultdict(list)
    for image, mask in pairs:
        masks[image].append(mask)
    labels.problems += [
        problem('mask without an image', mask, 'not used') for mask in masks.pop('', ())
    ]
    listed = classes or _class_list(folder, labels) or class_list(chain(*masks.values()))
    stems = {image: spelt_alike(PurePosixPath(image).stem) for image in masks}
    lists = read_image_sets(folder, [*stems.values()], 'Segmentation', labels.notes)
    are_complete = leave_rest(lists)
    left = {i: None for i in masks if are_complete and stems[i] not in lists}
    note_left_out(left, len(masks), 'images', labels.notes)
    for image, (mask, *others) in masks.items():
        if image in left:
            continue
        if others:
            words = f'{", ".join([mask, *others])}; keep one of them in the folder'
            labels.problems.append(problem('image with several masks', image, words))
            continue
        found = _values_of(folder, image, mask, labels, listed is not None)
        if found is None:
            continue
        kind_of[mask], values[mask] = found
        palette = palette_of(folder.path(mask), values[mask])
        if palette is not None:
            palettes[mask] = palette
        split = lists.get(stems[image]) if lists else split_of_path(image)
        labels.pairs.append(LabelMapPair(image, mask, split))
    without = {*folder.photos} - {*masks} - {*chain(*masks.values())}
    if without:
        labels.notes.append(f'{len(without)} images without a mask are left out')
    away: set[int] = set()
    labels.by_palette = have_own_orders(palettes, listed, ignored)
    if labels.by_palette:
        away = ignored_colours(palettes, listed, ignored)
        if palettes.keys() == values.keys():
            ignored = ()  # whose values are told by their colours
        for mask, palette in palettes.items():
            kind_of[mask] = 'colours'
            by_colour: Counter[int] = Counter()
            for value, count in values[mask].items():
                by_colour[palette[value]] += count
            values[mask] = dict(by_colour)
    else:
        labels.problems += differing_palettes(palettes, listed, ignored)
    kinds = Counter(kind_of.values())
    is_grey = all(is_shade(v, kind_of[mask]) for mask, found in values.items() for v in found)
    if len(kinds) > 1 and not is_grey:
        words = f'{kinds["ids"]} of ids, {kinds["colours"]} of colours'
        labels.problems.append(problem('masks of two kinds', folder.root, words))
    elif kinds['colours'] and not is_grey:
        beyond = [value for value in ignored if value > 255]
        if beyond:
            raise UserError(
                f'--ignore-label {beyond[0]}: the masks have colours; 0 to 255 are their greys'
            )
        _name_colours(labels, values, listed, away | {value * 0x010101 for value in ignored})
    elif kinds:
        ids = values
        if kinds['colours']:
            ids = {m: {v & 255: count for v, count in found.items()} for m, found in values.items()}
        _name_ids(labels, ids, listed, [*ignored, *(value & 255 for value in away)])
        if kinds['colours'] and labels.classes:
            # mmseg wants one channel
            mapping = labels.values or {label: label for label in range(len(labels.classes))}
            mapping[IGNORED] = mapping.get(IGNORED, IGNORED)
            labels.values = {**mapping, **{value * 0x010101: to for value, to in mapping.items()}}
    if len(labels.classes) > IGNORED:
        words = f'{len(labels.classes)} classes, but a label map holds {IGNORED} at most'
        labels.problems.append(problem('too many classes', folder.root, words))
    if not labels.problems:
        _leave_untestable(labels, values)
        _tell_of_little(labels, values)
    return labels


def _leave_untestable(labels: LabelMaps, values: Mapping[str, Pixels]) -> None:
    """Leaves out images for testing whose truth is kept back: all of their masks is ignored."""
    mapping = labels.values or {}
    kept, left = [], []
    for pair in labels.pairs:
        is_hollow = all(mapping.get(v, v) == IGNORED for v in values[pair.label_map])
        (left if pair.split == 'test' and is_hollow else kept).append(pair)
    if kept and left:
        labels.pairs = kept
        words = f'{len(left)} for testing whose masks are ignored everywhere'
        labels.notes.append(f'images left out: {words}, such as {left[0].image}')


def _tell_of_little(labels: LabelMaps, values: Mapping[str, Pixels]) -> None:
    """Tells masks of which nothing can be learnt, as those whose classes were lost in saving."""
    mapping = labels.values or {}
    present = {mapping.get(value, value) for found in values.values() for value in found}
    present.discard(IGNORED)
    if values and not present:
        words = f'all pixels of the {len(values)} masks are ignored'
        labels.problems.append(problem('nothing left to train on', labels.root, words))
    elif len(present) == 1:
        name = labels.classes[present.pop()]
        labels.notes.append(f'the masks have nothing but {name}, of which nothing can be learnt')


def _values_of(
    folder: Folder, image: str, mask: str, labels: LabelMaps, has_list: bool
) -> tuple[str, Pixels] | None:
    """Returns the kind of a mask and which values it has, or notes what is wrong with it."""
    try:
        kind, pixels = pixel_values(folder.path(mask), max_pixels=folder.max_pixels)
        size = folder.size_of(image)
    except (OSError, SyntaxError, ValueError) as error:
        labels.problems.append(problem('unreadable image or mask', mask, error))
        return None
    if pixels.shape != size[::-1]:
        words = f'{pixels.shape[1]}x{pixels.shape[0]}, image {size[0]}x{size[1]}'
        labels.problems.append(problem('mask of another size than its image', mask, words))
        return None
    found = _counted(pixels)
    is_grey = all(is_shade(value, kind) for value in found)
    most = MOST_COLOURS if not is_grey or has_list else MOST_GREYS
    is_jpeg = mask.lower().endswith(JPEG)
    if len(found) > (2 if is_jpeg else most):
        words = 'scaled smoothly, or saved as JPEG?'
        if is_jpeg:
            words = 'JPEG mixes them; save masks as PNG'
        elif most == MOST_GREYS:
            words += ' If they are classes, name them in classes.txt'
        if is_grey and _is_nearly_binary(found):
            words += '; nearly all are black or white: split them at 128, see docs/own_data.md'
        words = f'{len(found)} {"values" if is_grey else "colours"}: {words}'
        labels.problems.append(problem('mask with mixed colours', mask, words))
        return None
    return kind, found


def _counted(pixels: np.ndarray) -> Pixels:
    if pixels.min() >= 0 and pixels.max() <= MOST_COUNTED:
        # many times as fast as to sort them
        counts = np.bincount(pixels.ravel())
        numbers = np.flatnonzero(counts)
        counts = counts[numbers]
    else:
        numbers, counts = np.unique(pixels, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _is_nearly_binary(found: Pixels) -> bool:
    """Whether a grey mask is black and white but for the noise of JPEG."""
    shades: Counter[int] = Counter()
    for value, count in found.items():
        shades[value & 255] += count
    dark, light = (
        sum(count for shade, count in shades.items() if abs(shade - end) <= NOISE)
        for end in (0, 255)
    )
    return light > 0 and dark + light >= NEARLY_ALL * shades.total()


def pixel_values(
    path: Path, by_palette: bool = False, max_pixels: float = math.inf
) -> tuple[str, np.ndarray]:
    """Reads a mask.

    Args:
        path: The file.
        by_palette: Whether a mask with a palette has its colours, not ids. Default: False.
        max_pixels: How many it may have. Default: any number, of a mask that was read before.

    Returns:
        ``'ids'`` or ``'colours'``, and H, W numbers: the ids, or colours as 0xRRGGBB.

    Raises:
        OSError: If it is no whole picture, or a larger one.
        ValueError: If it has values that are no whole numbers.
    """
    with open_picture(path, max_pixels) as picture:
        if picture.mode == '1':
            return 'ids', np.asarray(picture, dtype=np.int64)
        is_coloured = picture.mode == 'CMYK' or (by_palette and picture.mode == 'P')
        pixels = np.asarray(picture.convert('RGB') if is_coloured else picture)
    if pixels.dtype.kind == 'f':
        with np.errstate(invalid='ignore'):
            broken = pixels[pixels != pixels.astype(np.int64)]
        if broken.size:
            raise ValueError(f'values that are no whole numbers, such as {broken[0]:g}')
    if pixels.ndim == 2:
        return 'ids', pixels.astype(np.int64)
    if pixels.shape[2] < 3:  # grey with opacity
        return 'ids', pixels[..., 0].astype(np.int64)
    red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
    return 'colours', (red << 16) | (green << 8) | blue


def _name_ids(
    labels: LabelMaps,
    values: Mapping[str, Pixels],
    listed: ClassList | None,
    ignored: Sequence[int],
) -> None:
    pixels: Counter[int] = Counter()
    for found in values.values():
        pixels.update(found)
    present = sorted(pixels)
    if listed is None and not ignored and present == [0, 255]:
        # 255 would be ignored, and nothing be left to learn
        labels.classes, labels.values = ('background', 'foreground'), {0: 0, 255: 1}
        labels.palette = distinct_colours(2)
        return
    away = {IGNORED, *ignored}
    if listed is None:
        kept = [value for value in present if value not in away]
        names = [f'class_{value}' for value in kept]
        if kept:
            labels.notes.append(
                f'no list of classes found: the values {_ranges(kept)} are classes, '
                'named after them'
            )
    else:
        kept, names = _listed_values(listed, present, ignored), list(listed.names)
        if IGNORED in kept:
            away = {*ignored}
        elif IGNORED not in ignored:
            _tell_of_ignored(labels, pixels, kept, names)
    kept, names = _without_ignored(kept, names, away)
    mapping = {value: label for label, value in enumerate(kept)}
    mapping.update((value, IGNORED) for value in present if value in away)
    _tell_foreign(labels, values, mapping, 'mask with labels of no class', str, kept, names)
    labels.classes = tuple(names)
    labels.palette = distinct_colours(len(names))
    if listed is not None and listed.colours is not None:
        colours = dict(zip(listed.names, listed.colours, strict=True))
        labels.palette = tuple(colours[name] for name in names)
    if any(value != label for value, label in mapping.items()):
        labels.values = mapping


def _listed_values(listed: ClassList, present: Sequence[int], ignored: Sequence[int]) -> list[int]:
    """Returns the value of each listed class in masks of one channel."""
    if listed.values is not None:
        return list(listed.values)
    if listed.colours is not None and all(len(set(colour)) == 1 for colour in listed.colours):
        shades = [colour[0] for colour in listed.colours]
        if {*present} <= {*shades, *ignored, IGNORED}:
            return shades
    if len(listed.names) == 2 and present == [0, 255] and IGNORED not in ignored:
        return present[:]
    return list(range(len(listed.names)))


def _tell_of_ignored(
    labels: LabelMaps, pixels: Mapping[int, int], kept: Sequence[int], names: Sequence[str]
) -> None:
    """Notes where 255 seems to be a class: it covers most, and a class has nothing."""
    pairs = zip(kept, names, strict=True)
    lacking = [name for v, name in pairs if v not in pixels and name.lower() not in IGNORED_NAMES]
    others = sum(count for value, count in pixels.items() if value != 0)
    if (lacking or len(names) == 1) and pixels[IGNORED] > others / 2:
        words = f'no mask has {", ".join(lacking)}' if lacking else f'{names[0]} is the only class'
        labels.problems.append(
            problem(
                'classes do not fit',
                labels.root,
                f'{words}, and 255, which would be ignored, is {pixels[IGNORED] / others:.0%} of '
                'what is not 0; write a class and its value into each line of classes.txt, as in '
                '"background 0", or say --ignore-label 255',
            )
        )


def _without_ignored(
    kept: list[int], names: list[str], away: set[int]
) -> tuple[list[int], list[str]]:
    """Leaves out classes that are none; their values become ignored ones."""
    away.update(v for v, n in zip(kept, names, strict=True) if n.lower() in IGNORED_NAMES)
    whole = [(v, n) for v, n in zip(kept, names, strict=True) if v not in away]
    return [value for value, _ in whole], [name for _, name in whole]


def _name_colours(
    labels: LabelMaps, values: Mapping[str, Pixels], listed: ClassList | None, away: set[int]
) -> None:
    present = sorted({value for found in values.values() for value in found})
    if len(present) > MOST_COLOURS:
        labels.problems.append(
            problem('masks with mixed colours', labels.root, f'{len(present)} colours in all')
        )
        return
    if listed is None or len(listed.names) != len(present):
        present = [value for value in present if value not in away]
    if listed is not None and listed.colours is not None:
        kept, names = colour_numbers(listed), list(listed.names)
    else:
        kept = present
        names = [f'colour_{value:06x}' for value in present]
        if listed is not None and len(listed.names) != len(present):
            labels.problems.append(
                problem(
                    'classes do not fit',
                    labels.root,
                    f'{len(listed.names)} classes without colours, {len(present)} colours: '
                    f'{", ".join(names)}; write "name,red,green,blue" lines into classes.txt',
                )
            )
        elif listed is not None:
            names = list(listed.names)
        else:
            labels.notes.append(
                f'no list of classes found: the {len(present)} colours are classes, named after '
                'them'
            )
    kept, names = _without_ignored(kept, names, away)
    mapping = {value: label for label, value in enumerate(kept)}
    mapping.update((value, IGNORED) for value in away)
    _tell_foreign(
        labels, values, mapping, 'mask with colours of no class', '#{:06x}'.format, kept, names
    )
    labels.classes = tuple(names)
    labels.palette = tuple((v >> 16, (v >> 8) & 255, v & 255) for v in kept)
    labels.values = mapping


def _tell_foreign(
    labels: LabelMaps,
    values: Mapping[str, Pixels],
    mapping: Mapping[int, int],
    kind: str,
    word: Callable[[int], str],
    kept: Sequence[int],
    names: Sequence[str],
) -> None:
    """Notes the masks that have values of no class."""
    foreign: Mapping[str, list[int]] = defaultdict(list)
    for mask, found in values.items():
        foreign[mask] = [value for value in found if value not in mapping]
    known = ', '.join(f'{word(value)} {name}' for value, name in zip(kept, names, strict=True))
    for mask, wrong in foreign.items():
        if wrong:
            words = ', '.join(map(word, wrong[:10]))
            labels.problems.append(problem(kind, mask, f'{words}; the classes are {known}'))


def _ranges(values: Sequence[int]) -> str:
    if list(values) == list(range(values[0], values[-1] + 1)) and len(values) > 2:
        return f'{values[0]} to {values[-1]}'
    return ', '.join(map(str, values))
