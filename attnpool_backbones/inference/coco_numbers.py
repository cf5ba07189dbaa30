"""Numbers of images and categories in results for COCO's evaluation."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from attnpool_backbones.command_line import UserError

__all__ = ['listed_numbers', 'own_numbers', 'read_annotations']


def read_annotations(path: str, classes: Sequence[str]) -> tuple[list[tuple[str, Any]], list[int]]:
    """Reads what numbers images and categories.

    Args:
        path: A COCO file.
        classes: Names, by label.

    Returns:
        Name and number of each image, and the number of each class.

    Raises:
        UserError: If it cannot be read, or lacks one of the classes.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        images = [(str(image['file_name']), image['id']) for image in content['images']]
        numbers = {category['name']: category['id'] for category in content['categories']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'--annotations {path}: {error}') from error
    lacking = [name for name in classes if name not in numbers]
    if lacking:
        raise UserError(
            f'--annotations {path}: no category {", ".join(lacking)}; it has {", ".join(numbers)}'
        )
    return images, [numbers[name] for name in classes]


def listed_numbers(
    paths: Mapping[str, PurePosixPath], images: Sequence[tuple[str, Any]]
) -> dict[str, Any]:
    """Finds images in annotations, by the end of their paths.

    An image is the one whose path has the most folders in common with its own, counted from the
    file name. Images of which several are as near, or that share one with another as near to it,
    are not found: a wrong number would spoil the evaluation.

    Args:
        paths: Name of an image -> its path, as whole as it is known.
        images: Path and number of each image of the annotations.

    Returns:
        Name -> number, of the images that are found.
    """
    owners: dict[tuple[str, ...], int | None] = {}
    for index, (listed, _) in enumerate(images):
        for end in _ends(PurePosixPath(listed)):
            owners[end] = None if end in owners else index
    claims: dict[int, dict[str, int]] = defaultdict(dict)
    for name, path in paths.items():
        end = next((end for end in _ends(path) if end in owners), ())
        index = owners.get(end)
        if index is not None:
            claims[index][name] = len(end)
    found = {}
    for index, claimants in claims.items():
        nearest = [name for name, n in claimants.items() if n == max(claimants.values())]
        if len(nearest) == 1:
            found[nearest[0]] = images[index][1]
    return found


def own_numbers(names: Sequence[str]) -> dict[str, int | str]:
    """Returns the number that a file name is, or the whole name; names if numbers were equal."""
    stems = {name: PurePosixPath(name).stem for name in names}
    numbers = {name: int(stem) if stem.isdecimal() else name for name, stem in stems.items()}
    if len(set(numbers.values())) < len(numbers):
        return {name: name for name in names}
    return numbers


def _ends(path: PurePosixPath) -> list[tuple[str, ...]]:
    """Returns a path, the path without its first folder, and so on to the name of the file."""
    return [path.parts[start:] for start in range(len(path.parts))]
