"""What lies in a folder: images by their names, sizes, and splits that paths tell."""

import os
import re
import stat
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.image_files import IMAGE_SUFFIXES, walk_links
from attnpool_backbones.datasets.limits import MAX_PIXELS, without_pillow_limit
from attnpool_backbones.datasets.orientation import orientation_of

__all__ = [
    'IMAGE_FOLDER',
    'MASK_FOLDER',
    'UNREAD',
    'Folder',
    'displayed_size',
    'folder_of',
    'is_in_mask_folder',
    'open_picture',
    'shared_folders',
    'split_of_path',
    'spelt_alike',
]

_SPLIT_WORDS = dict(
    train='train', training='train', trn='train', val='val', valid='val', validation='val',
    dev='val', eval='val', test='test', testing='test',
)  # fmt: skip
_WORD = re.compile(r'[a-z]+')
_PART = 65536  # bytes
_KEY = re.compile(rb'"([A-Za-z_]+)"\s*:')
MASK_FOLDER = re.compile(
    r'(?P<split>train|training|val|valid|validation|test|testing|default)?[_-]?'
    r'(masks?|labels?|label_?maps?|annots?|annotations?|gts?|gt(?:fine|coarse)|ground_?truths?|segmentations?|'
    r'segmentation(class|object)\w*|segmaps?|seg_?labels?|semantic)$',
    re.IGNORECASE,
)
"""Names of folders that have masks rather than photos."""
IMAGE_FOLDER = re.compile(
    r'(images?|imgs?|jpegimages|photos?|pictures?|rgb|leftimg8bit|imgsfine)$', re.IGNORECASE
)
"""Names of folders that have photos."""
UNREAD = (
    '.heic', '.heif', '.avif', '.jp2', '.jxl', '.jfif', '.pgm', '.tga', '.dng', '.cr2', '.cr3',
    '.nef', '.arw',
)  # fmt: skip
"""Endings of photos as cameras and phones write them, which OpenCV and Pillow may not read."""
_NO_DATA = (
    'work_dirs', '@eaDir', '#recycle', '#snapshot', '@Recycle', '@Recently-Snapshot',
    '$RECYCLE.BIN', 'System Volume Information', '__MACOSX',
)  # fmt: skip
"""Folders of this package, and hidden ones of file servers and systems: copies, deleted files."""
_NO_TEXT = re.compile('[\udc80-\udcff]')
"""What Python makes of the bytes of a file name that are no UTF-8."""


class Folder:
    """The files below a folder and below folders that it links to, without hidden ones.

    A folder with several paths counts once: by the path without links, unless that says less of
    split and kind (``raw``) than one through a link does (``images/train``).
    What this package itself wrote there, into ``work_dirs`` or by ``attnpool browse`` and
    ``attnpool predict``, is left out.

    Args:
        root: The folder.
        max_pixels: How many an image or a mask may have. Default: 2**28.
    """

    def __init__(self, root: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.root = root
        self.max_pixels = max_pixels
        self.label_files: dict[str, Sequence] = {}
        """By format, as far as they were looked for."""
        self.closed: dict[str, str] = {}
        """Folders that cannot be read, and why, once the files were listed."""
        self.turned: set[str] = set()
        """Photos that EXIF turns by a quarter, of which no label has told the size."""
        self._own_photos: dict[PurePosixPath, _Photos] = {}
        self._walked_as: dict[str, str] = {}
        """By file the path that label files may know it by, where it is named by a link."""

    @cached_property
    def files(self) -> list[str]:
        """All files, relative and with ``/``, in the order of their names.

        Raises:
            UserError: If names are no UTF-8, which no annotation file could hold.
        """
        found = []
        walked, links = {}, []

        def note(error: OSError, folder: str | None = None) -> None:
            place = Path(folder or error.filename).relative_to(self.root).as_posix()
            self.closed[place] = error.strerror or str(error)

        for folder, folders, names in walk_links(self.root, note):
            if Path(folder) != Path(self.root) and _is_own_output(names, folders):
                folders.clear()
                continue
            folders[:] = [
                name for name in folders if name not in _NO_DATA and not name.startswith('.')
            ]
            inside = PurePosixPath(Path(folder).relative_to(self.root).as_posix())
            walked[os.path.realpath(folder)] = inside
            links += [inside / name for name in folders if os.path.islink(Path(folder, name))]
            is_file = partial(_is_file, note=partial(note, folder=folder))
            found += [
                inside / name
                for name in names
                if not name.startswith('.') and is_file(Path(folder, name))
            ]
        found = self._by_telling_links(found, walked, links)
        odd = sorted(file for file in found if _NO_TEXT.search(file))
        if odd:
            shown = [os.fsencode(file).decode(errors='backslashreplace') for file in odd[:10]]
            encoding = sys.getfilesystemencoding()
            cause = (
                'no UTF-8, rename them'
                if encoding == 'utf-8'
                else f'no {encoding}, in which this locale has names (export LC_ALL=C.UTF-8, and '
                'unset PYTHONUTF8)'
            )
            raise UserError(
                f'{self.root}: the names of {len(odd)} files are {cause}: '
                + ', '.join([*shown, *(['...'] if len(odd) > 10 else [])])
            )
        return sorted(found)

    def _by_telling_links(
        self,
        found: Sequence[PurePosixPath],
        walked: Mapping[str, PurePosixPath],
        links: Sequence[PurePosixPath],
    ) -> list[str]:
        """Names files by links to their folders where these say more.

        Args:
            found: The files, as they were walked.
            walked: By real path the folders.
            links: Paths of the links to folders.
        """
        names: dict[PurePosixPath, PurePosixPath] = {}
        rivals: set[PurePosixPath] = set()
        for link in links:
            folder = walked.get(os.path.realpath(self.root / link))
            # a loop is no other name
            if folder is None or folder in link.parents:
                continue
            told = _told_by(link)
            if told > _told_by(names.get(folder, folder)):
                names[folder] = link
                rivals.discard(folder)
            elif folder in names and told == _told_by(names[folder]):
                splits = {split_of_path(f'{name}/image') for name in (link, names[folder])}
                rivals |= {folder} if len(splits) > 1 else set()
        # a folder of several splits is of none
        names = {folder: link for folder, link in names.items() if folder not in rivals}
        files = []
        for path in found:
            folder = next((above for above in path.parents if above in names), None)
            file = path.as_posix()
            if folder is not None:
                file = (names[folder] / path.relative_to(folder)).as_posix()
                self._walked_as[file] = path.as_posix()
            files.append(file)
        return files

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Returns the files that end with one of these, whatever the case."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    @cached_property
    def images(self) -> list[str]:
        """The files that are named as images."""
        return self.with_suffix(*IMAGE_SUFFIXES)

    @cached_property
    def photos(self) -> list[str]:
        """The images that are no masks, as far as their folders tell."""
        return [file for file in self.images if not is_in_mask_folder(file)] or self.images

    def photos_for(self, label_file: str, split: str | None = None) -> list[str]:
        """Lists the photos that a label file may mean.

        If it is in a folder of masks itself, these are also the images beside it and those in a
        folder for images there, unless they share names with photos outside: then they are masks.

        Args:
            label_file: Relative to the folder.
            split: Leaves out the photos of other splits if there are some of this one. Default:
                None, there is no such.
        """
        photos = [*self.photos, *self._photos_near(label_file).files]
        splits = [split_of_path(file) for file in photos]
        if split is None or split not in splits:
            return photos
        return [f for f, own in zip(photos, splits, strict=True) if own in (None, split)]

    @cached_property
    def _all_photos(self) -> '_Photos':
        return _Photos(self.photos)

    @cached_property
    def _by_folder(self) -> dict[PurePosixPath, list[str]]:
        folders = defaultdict(list)
        for file in self.images:
            folders[PurePosixPath(file).parent].append(file)
        return folders

    def _photos_near(self, label_file: str) -> '_Photos':
        here = PurePosixPath(label_file).parent
        if here not in self._own_photos:
            files = []
            if is_in_mask_folder(label_file):
                inside = (self._by_folder[f] for f in self._by_folder if _has_photos_of(here, f))
                files = list(chain(*inside))
            if any(map(self._all_photos.named, files)):
                files = []
            self._own_photos[here] = _Photos(files)
        return self._own_photos[here]

    def find_image(
        self, name: str, near: str = '', subset: str = '', named: str = ''
    ) -> str | None:
        """Finds the image that a label means: the one at its path, else a photo of its name.

        A photo of another split is none, unless the folder has no photos of the split that the
        path, or else the subset, or else the label file, is in.

        Args:
            name: Path or file name as the label says it, with or without its ending.
            near: The label file; of images with the same name the one whose path shares the most
                parts with it is taken. Images in its own folder count, even if that is named as
                one of masks, where no photo has the name (:meth:`photos_for`).
            subset: What else the label says the image belongs to, such as a split; of images with
                the same name one in a folder of this name is taken. Default: nothing.
            named: Path or file name that the label says beside its own name; of images that differ
                in their endings alone the one with its ending is taken. Default: nothing.

        Returns:
            The image, relative to the folder; None if there is none.
        """
        wanted = PurePosixPath(spelt_alike(name).replace('\\', '/'))
        path = wanted.as_posix()
        inside = PurePosixPath(spelt_alike(subset), path).as_posix()
        for exact in (inside, path):
            if exact in self._by_any_name:
                return self._by_any_name[exact]
        split = split_of_path(path) or split_of_path(f'{subset}/image') or split_of_path(near)
        ending = PurePosixPath(named.replace('\\', '/')).suffix
        own = self._photos_near(near)
        has_split = split in self._all_photos.splits | own.splits
        for photos in (self._all_photos, own):
            candidates = photos.named(path)
            if has_split:
                candidates = [file for file in candidates if split_of_path(file) in (None, split)]
            for end in (inside, path):
                candidates = [
                    file
                    for file in candidates
                    if any(spelt_alike(n).endswith(f'/{end}') for n in self.names_of(file))
                ] or candidates
            if candidates:
                return max(candidates, key=lambda f: (_fitness(f, near), f.endswith(ending)))
        return None

    def unread_kind(self, name: str) -> str:
        """Words that a photo is there, but of a kind that is not read; nothing if there is none.

        Args:
            name: Path or file name as a label says it, with or without its ending.
        """
        wanted = PurePosixPath(spelt_alike(name).replace('\\', '/'))
        file = self._unread.get(wanted.name) or self._unread.get(wanted.stem)
        return f' ({file} is of a kind that is not read: convert it)' if file else ''

    @cached_property
    def _unread(self) -> dict[str, str]:
        paths = map(PurePosixPath, self.with_suffix(*UNREAD))
        return {spelt_alike(name): str(p) for p in paths for name in (p.name, p.stem)}

    def without_labels(self, labelled: Iterable[str]) -> list[str]:
        """Words which photos are in no label file, none if all are in one.

        Args:
            labelled: The images that are.
        """
        without = sorted({*self.photos} - {*labelled})
        if not without:
            return []
        return [f'{len(without)} images without labels are left out, such as {without[0]}']

    @cached_property
    def image_set(self) -> frozenset[str]:
        """The same as a set."""
        return frozenset(self.images)

    @cached_property
    def _by_any_name(self) -> dict[str, str]:
        return {spelt_alike(n): file for file in self.images for n in self.names_of(file)}

    def names_of(self, file: str) -> tuple[str, ...]:
        """Returns the name of a file, and the one without a link, if it is named by a link."""
        return (file, self._walked_as[file]) if file in self._walked_as else (file,)

    def path(self, file: str) -> Path:
        """Returns the path of a file that is named relative to the folder."""
        return self.root / file

    def size_of(self, image: str) -> tuple[int, int]:
        """Returns width and height of an image as :func:`displayed_size` does."""
        width, height, is_turned = _size_and_turn(self.path(image), self.max_pixels)
        if is_turned:
            self.turned.add(image)
        return width, height

    @cached_property
    def json_keys(self) -> dict[str, frozenset[str]]:
        """By ``.json`` file the keys at both of its ends; several formats ask, it is read once."""
        return {
            file: frozenset(sys.intern(k.decode()) for k in _KEY.findall(self.both_ends(file)))
            for file in self.with_suffix('.json')
        }

    def both_ends(self, file: str) -> bytes:
        """Returns the first and the last 64 KiB of a file, where keys tell what it is."""
        with open(self.path(file), 'rb') as opened:
            text = opened.read(_PART)
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(size - _PART, len(text)))
            return text + opened.read()

    def text(self, file: str) -> str:
        """Returns the text of a file; what is not UTF-8 is replaced."""
        return self.path(file).read_text(encoding='utf-8-sig', errors='replace')


class _Photos:
    """Photos by their names, and the splits that they are in."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.splits = frozenset(filter(None, map(split_of_path, files)))
        self._by_name = defaultdict(list)
        for file in files:
            path = PurePosixPath(spelt_alike(file))
            self._by_name[path.name].append(file)
            self._by_name[path.stem].append(file)

    def named(self, path: str) -> list[str]:
        """Returns those of a name with or without its ending, else those with another ending."""
        wanted = PurePosixPath(path)
        found = self._by_name.get(wanted.name, [])
        if not found and wanted.suffix.lower() in IMAGE_SUFFIXES:
            found = self._by_name.get(wanted.stem, [])
        return found


def spelt_alike(name: str) -> str:
    """Returns a name with its accents in one form; macOS writes them as signs of their own."""
    return unicodedata.normalize('NFC', name)


def _is_file(path: Path, note: Callable[[OSError], None]) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError as error:  # of a folder that can be listed and not entered
        note(error)
    except OSError:
        pass
    return False


def _told_by(folder: PurePosixPath) -> int:
    """Counts what a path of a folder tells: a split, and whether it has images or masks."""
    is_named = any(IMAGE_FOLDER.match(part) or MASK_FOLDER.match(part) for part in folder.parts)
    return is_named + (split_of_path(f'{folder}/image') is not None)


def _is_own_output(files: Sequence[str], folders: Sequence[str]) -> bool:
    return (
        'predictions.jsonl' in files
        or 'index.html' in files
        and ('samples' in folders or {'classes.csv', 'report.json'} <= set(files))
    )


def _fitness(file: str, near: str) -> tuple[bool, int, int]:
    here, there = set(PurePosixPath(file).parts[:-1]), set(PurePosixPath(near).parts[:-1])
    return not is_in_mask_folder(file), len(here & there), -len(here)


def folder_of(file: str) -> str:
    """Returns the folder that a file is in, as both are named."""
    return PurePosixPath(file).parent.as_posix()


def shared_folders(one: str, other: str) -> int:
    """Counts the folders, from the outermost on, that two files have in common."""
    folders = [PurePosixPath(file).parent.parts for file in (one, other)]
    return len(os.path.commonprefix(folders))


def _has_photos_of(labels: PurePosixPath, folder: PurePosixPath) -> bool:
    """Whether images of a folder may be photos of labels in a folder that is named as of masks."""
    if folder == labels:
        return True
    home = next(i for i, part in enumerate(labels.parts, 1) if MASK_FOLDER.match(part))
    below = folder.parts[home:]
    return (
        folder.parts[:home] == labels.parts[:home]
        and any(map(IMAGE_FOLDER.match, below))
        and not any(map(MASK_FOLDER.match, below))
    )


def is_in_mask_folder(file: str) -> bool:
    """Whether the name of a folder above a file says that it has masks."""
    return any(MASK_FOLDER.match(part) for part in PurePosixPath(file).parts[:-1])


def split_of_path(path: str, with_name: bool = False) -> str | None:
    """Tells the split that the folders of a path say; the innermost that says one counts.

    Args:
        path: Such as ``train2017/1.jpg`` or ``annotations/instances_val.json``.
        with_name: Whether the file name is asked too, after the folders. Names of images are not:
            ``train_7.jpg`` may show a train.
    """
    parts = PurePosixPath(path).parts
    for part in [*reversed(parts[:-1]), *([PurePosixPath(path).stem] if with_name else [])]:
        found = {_SPLIT_WORDS[word] for word in _WORD.findall(part.lower()) if word in _SPLIT_WORDS}
        if len(found) == 1:
            return found.pop()
    return None


def open_picture(file: Path | BinaryIO, max_pixels: float = MAX_PIXELS) -> Image.Image:
    """Opens an image by Pillow, above its limit of pixels too.

    Args:
        file: Path or content.
        max_pixels: How many it may have. Default: 2**28.

    Raises:
        OSError: If it is no image, or a larger one.
    """
    with without_pillow_limit():
        picture = Image.open(file)
    width, height = picture.size
    if width * height > max_pixels:
        picture.close()
        raise OSError(
            f'{width}x{height} pixels, more than the {max_pixels} that are loaded '
            '(attnpool train --cfg-options max_pixels=N allows more)'
        )
    return picture


def displayed_size(path: Path, max_pixels: float = MAX_PIXELS) -> tuple[int, int]:
    """Reads width and height of an image as it is shown, turned as its EXIF entry says.

    Args:
        path: The file, whose pixels are not decoded.
        max_pixels: How many it may have. Default: 2**28.

    Raises:
        OSError: If it is no image, or a larger one.
    """
    return _size_and_turn(path, max_pixels)[:2]


def _size_and_turn(path: Path, max_pixels: float) -> tuple[int, int, bool]:
    with open_picture(path, max_pixels) as image:
        width, height = image.size
        is_turned = orientation_of(image, path) >= 5
        # Pillow turns TIFFs itself
        is_swapped = is_turned and image.format != 'TIFF'
        return (*((height, width) if is_swapped else (width, height)), is_turned)
