"""ADE20K's scene parsing benchmark (arXiv 1608.05442) from its official archive.

::

    data/ade/ADEChallengeData2016/images/{training,validation}/*.jpg
    data/ade/ADEChallengeData2016/annotations/{training,validation}/*.png
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.unpacking import Archive, open_archives, unpack

__all__ = ['CLASSES', 'IMAGES', 'prepare']

ARCHIVE = Archive(
    'ADEChallengeData2016.zip',
    'ADEChallengeData2016',
    'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
)
IMAGES = {'training': 20210, 'validation': 2000}
CLASSES = 150
CLASS_FILE = 'objectInfo150.txt'
SUFFIXES = {'images': '.jpg', 'annotations': '.png'}


def prepare(
    downloads: Path,
    root: Path,
    images: Mapping[str, int] = IMAGES,
    classes: int = CLASSES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpacks what is not there yet and checks all of it.

    Args:
        downloads: Folder with the archive; not asked for when the data set is complete.
        root: Where to, e.g. ``data/ade``.
        images: Expected number of images by split, ``'training'`` and ``'validation'``.
        classes: Expected number of classes.
        progress: Called with the bytes unpacked and the bytes in all.

    Raises:
        UserError: The archive or files are missing, or the numbers are not as expected; the
            message names everything.
    """
    folder = root / ARCHIVE.folder
    lacking = _problems(folder, images, classes)
    if lacking:
        opened = open_archives(downloads, [ARCHIVE], lacking if folder.exists() else ())
        try:
            unpack(opened, root, progress)
        finally:
            for archive in opened.values():
                archive.close()
    problems = _problems(folder, images, classes)
    if problems:
        raise UserError(f'{folder} is not the whole ADE20K benchmark:\n' + '\n'.join(problems))


def _problems(folder: Path, images: Mapping[str, int], classes: int) -> list[str]:
    """Lists what the data set lacks."""
    problems = []
    for split, expected in images.items():
        stems = {}
        for kind, suffix in SUFFIXES.items():
            stems[kind] = {path.stem for path in (folder / kind / split).glob(f'*{suffix}')}
            if len(stems[kind]) != expected:
                problems.append(
                    f'{folder / kind / split} has {len(stems[kind])} {suffix} files, not {expected}'
                )
        for kind, other in (('images', 'annotations'), ('annotations', 'images')):
            alone = sorted(stems[kind] - stems[other])
            if alone:
                problems.append(
                    f'{len(alone)} {kind} of {split} have no file in {other}: '
                    f'{", ".join(alone[:5])}{" ..." if len(alone) > 5 else ""}'
                )
    file = folder / CLASS_FILE
    if not file.is_file():
        return [*problems, f'{file} is missing']
    # below a heading, one line for each class, beginning with its number
    count = sum(line[:1].isdigit() for line in file.read_text().splitlines())
    if count != classes:
        problems.append(f'{file} has {count} classes, not {classes}')
    return problems
