"""Folders of images: what counts as an image, and how folders are walked."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ['IMAGE_SUFFIXES', 'walk_links']

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.gif')


def walk_links(
    root: Path, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walks as ``os.walk`` from the top, also through links, and through each folder once.

    What is below the folder without links comes first, so that it has the names that it has there.

    Args:
        root: The folder.
        onerror: Called with the error of a folder that cannot be read. Default: it is passed over.
    """
    seen = set()
    tops = [os.fspath(root)]
    for top in tops:
        for folder, folders, names in os.walk(top, onerror=onerror):
            here = os.path.realpath(folder)
            if here in seen:
                folders.clear()
                continue
            seen.add(here)
            folders.sort()
            yield folder, folders, names
            inside = (os.path.join(folder, name) for name in folders)
            tops += filter(os.path.islink, inside)
