"""ADE20K's scene parsing benchmark (arXiv 1608.05442) from its official archive.

::

    data/ade/ADEChallengeData2016/images/{training,validation}/*.jpg
    data/ade/ADEChallengeData2016/annotations/{training,validation}/*.png
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from attnpool_backbones.datasets.completing import Finding, complete, some, whole_and_empty
from attnpool_backbones.datasets.records import ADE20K
from attnpool_backbones.datasets.unpacking import Archive

__all__ = ['prepare']

ARCHIVE = Archive(
    'ADEChallengeData2016.zip',
    'ADEChallengeData2016',
    'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
)
CLASS_FILE = 'objectInfo150.txt'
SUFFIXES = {'images': '.jpg', 'annotations': '.png'}


def prepare(
    downloads: Path,
    root: Path,
    images: Mapping[str, int] = ADE20K.images,
    classes: int = ADE20K.classes,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpacks what is not there yet or damaged and checks all of it.

    Of images and label maps only the size is looked at: none may be empty.

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
    complete(
        lambda: _findings(folder, images, classes),
        downloads,
        root,
        'the whole ADE20K benchmark',
        progress,
    )


def _findings(folder: Path, images: Mapping[str, int], classes: int) -> list[Finding]:
    """Lists what is wrong with the data set."""
    findings = []
    for split, expected in images.items():
        stems = {}
        for kind, suffix in SUFFIXES.items():
            place = folder / kind / split
            whole, empty = whole_and_empty(place, suffix)
            stems[kind] = {name.removesuffix(suffix) for name in whole + empty}
            if empty:
                text = f'{place} has {len(empty)} {suffix} files without content: {some(empty)}'
                findings.append(Finding(text, ARCHIVE))
            if len(stems[kind]) != expected:
                text = f'{place} has {len(stems[kind])} {suffix} files, not {expected}'
                findings.append(Finding(text, ARCHIVE))
        for kind, other in (('images', 'annotations'), ('annotations', 'images')):
            alone = stems[kind] - stems[other]
            if alone:
                text = f'{len(alone)} {kind} of {split} have no file in {other}: {some(alone)}'
                findings.append(Finding(text, ARCHIVE))
    file = folder / CLASS_FILE
    if not file.is_file():
        return [*findings, Finding(f'{file} is missing', ARCHIVE)]
    # below a heading, one line for each class, beginning with its number
    count = sum(line[:1].isdigit() for line in file.read_text(errors='replace').splitlines())
    if count != classes:
        findings.append(Finding(f'{file} has {count} classes, not {classes}', ARCHIVE, (file,)))
    return findings
