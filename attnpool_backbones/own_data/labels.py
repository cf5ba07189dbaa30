"""What the labels of a folder say, whichever format they are written in."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attnpool_backbones.datasets.findings import Problem

__all__ = ['Instance', 'LabelMapPair', 'LabelMaps', 'LabelledImage', 'LabelledImages', 'problem']

SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Instance:
    """One labelled object.

    Args:
        name: Of its class.
        box: Left, top, width and height in pixels, from the upper left corner of the image.
        where: File and place in it, for messages.
        polygons: Outlines x, y, x, y, ... in pixels.
        run_lengths: The mask in COCO's compressed form, instead of polygons.
        is_crowd: Whether it is neither learnt nor scored (``iscrowd`` of COCO).
        area: In pixels, where the labels say it.
    """

    name: str
    box: tuple[float, float, float, float]
    where: str
    polygons: tuple[tuple[float, ...], ...] = ()
    run_lengths: dict[str, Any] | None = None
    is_crowd: bool = False
    area: float | None = None

    @property
    def has_mask(self) -> bool:
        """Whether more is known than the box."""
        return bool(self.polygons) or self.run_lengths is not None


@dataclass(frozen=True)
class LabelledImage:
    """An image and the objects in it.

    Args:
        file: Relative to the folder, with ``/``.
        width: In pixels.
        height: In pixels.
        instances: Its objects; none for an image of background.
        split: ``'train'``, ``'val'`` or ``'test'``, None if nothing tells.
    """

    file: str
    width: int
    height: int
    instances: tuple[Instance, ...] = ()
    split: str | None = None

    @property
    def has_objects(self) -> bool:
        """Whether there is an object that is learnt and scored."""
        return not all(instance.is_crowd for instance in self.instances)


@dataclass
class LabelledImages:
    """All that boxes, polygons and masks of objects say.

    Args:
        root: The folder.
        format: In words, for messages.
        images: In the order of their files.
        classes: In the order of the format's own list, else by name.
        problems: What cannot be understood, and where.
        object_problems: The same of objects, each with the class it is said to be of.
        notes: What is left out on purpose.
        coco_files: Annotation file and folder of images by split, relative to the root, where COCO
            files can be trained on as they are.
    """

    root: Path
    format: str
    images: list[LabelledImage]
    classes: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    object_problems: list[tuple[str, Problem]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    coco_files: dict[str, tuple[str, str]] | None = None

    def instances(self) -> Iterator[Instance]:
        """Yields the objects of all images."""
        for image in self.images:
            yield from image.instances

    def counts(self) -> Counter[str]:
        """How many objects each class has."""
        return Counter(instance.name for instance in self.instances())

    @property
    def has_masks(self) -> bool:
        """Whether every object has a mask."""
        return all(instance.has_mask for instance in self.instances())

    def with_splits(self, splits: Iterable[str | None]) -> 'LabelledImages':
        """Returns the same labels with other splits, one for each image."""
        paired = zip(self.images, splits, strict=True)
        return replace(self, images=[replace(image, split=split) for image, split in paired])


@dataclass(frozen=True)
class LabelMapPair:
    """An image and its label map, both relative to the folder, with ``/``."""

    image: str
    label_map: str
    split: str | None = None


@dataclass
class LabelMaps:
    """All that a folder of masks says.

    Args:
        root: The folder.
        format: In words, for messages.
        pairs: In the order of the images.
        classes: By label.
        palette: Red, green and blue of each class.
        values: Value of a pixel -> label, where these differ; a colour is the number 0xRRGGBB. None
            if the values are the labels.
        by_palette: Whether masks with a palette are read as its colours.
        objects: Of each pair in place of a file: the image and the objects that its label map is
            drawn of. None if the label maps are there.
        problems: What cannot be understood, and where.
        notes: What is left out on purpose.
    """

    root: Path
    format: str
    pairs: list[LabelMapPair]
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    values: dict[int, int] | None = None
    by_palette: bool = False
    objects: tuple[LabelledImage, ...] | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def with_splits(self, splits: Iterable[str | None]) -> 'LabelMaps':
        """Returns the same masks with other splits, one for each image."""
        paired = zip(self.pairs, splits, strict=True)
        return replace(self, pairs=[replace(pair, split=split) for pair, split in paired])


def problem(kind: str, item: object, detail: object = '', split: str | None = None) -> Problem:
    """Makes an entry of the list of what is wrong.

    Args:
        kind: The same words for all cases of it.
        item: File and place in it.
        detail: The wrong value, and the right ones where that helps.
        split: Where it is known already.
    """
    return Problem(split or 'labels', kind, str(item), str(detail))
