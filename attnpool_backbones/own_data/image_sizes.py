"""Sizes of the images that labels are of, and whether they were annotated at another one."""

from attnpool_backbones.own_data.folder import Folder
from attnpool_backbones.own_data.labels import LabelledImages, problem

__all__ = ['size_of']


def size_of(
    image: str, folder: Folder, labels: LabelledImages, annotated: str = '', file: str = ''
) -> tuple[int, int] | None:
    """Reads width and height of an image as it is shown.

    Args:
        image: Relative to the folder.
        folder: Opened.
        labels: Told where the image cannot be read or was annotated at another size.
        annotated: That size, such as ``'640x480'``. Default: not said.
        file: Where it is said.

    Returns:
        None if the labels were told.
    """
    try:
        size = folder.size_of(image)
    except OSError as error:
        labels.problems.append(problem('unreadable image', image, error))
        return None
    here = f'{size[0]}x{size[1]}'
    if annotated and annotated != here:
        words = f'{here}, annotated {annotated} in {file}'
        labels.problems.append(problem('image of another size than annotated', image, words))
        return None
    if annotated:
        folder.turned.discard(image)
    return size
