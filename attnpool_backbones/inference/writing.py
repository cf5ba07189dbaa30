"""Where predictions go: pictures, a video, JSON, COCO results, label maps."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import cv2
import numpy as np

from attnpool_backbones.atomic_files import remove_stale_files, unfinished_file, write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.coco_numbers import (
    listed_numbers,
    own_numbers,
    read_annotations,
)
from attnpool_backbones.inference.drawing import draw, draw_class_maps
from attnpool_backbones.inference.prediction import Detections, Segmentation, Tagged
from attnpool_backbones.pictures import encoded_picture, name_for_opencv

__all__ = ['FILES', 'KINDS', 'PICTURE_FOLDERS', 'Outputs']

KINDS = ('pictures', 'json', 'coco', 'maps', 'class-maps')
"""What can be written."""
PICTURE_FOLDERS = ('pictures', 'label_maps', 'class_maps')
"""Where pictures go, below the folder of a run."""
FILES = ('predictions.jsonl', 'coco_results.json', 'video.mp4')
"""What goes into the folder itself."""
_VIDEO = 'mp4v'
_RATES, _USUAL_RATE = (1.0, 240.5), 25.0
"""Frames of a second that are believed, and those of a video that tells others."""
_MOST_UNITS = 65535
"""That MPEG-4 divides a second into."""


class Outputs:
    """Writes the predictions of a run into a folder.

    ``pictures/`` has a JPEG for each image, or ``video.mp4`` for a video; ``predictions.jsonl`` a
    line of JSON for each image; ``coco_results.json`` what COCO's evaluation reads, ``label_maps/``
    a PNG with the label of each pixel, ``class_maps/`` a JPEG with the maps of an image-level head.
    All but the video are written whole or not at all; files of an earlier run stay until then.
    What a run that was killed left unfinished is removed at once; :attr:`removed` has it.

    Args:
        folder: Made if it is missing.
        kinds: Some of :data:`KINDS`.
        is_detector: Whether there are objects or label maps.
        classes: Names, by label.
        rate: Frames of a second of a video, None for single images. One outside of 1 to 240 is
            written as 25; frames are resized to the first one.
        annotations: COCO file that tells the numbers of images and categories for ``coco``; images
            that are not in it get no results. Without one categories count from 1, and images are
            named by the number that their file name is, or by the name; all by their names if two
            numbers were equal.
        has_tags: Whether the model has an image-level head.
        is_tagger: Whether it has nothing else. Default: False.
        files: That are predicted on, as :class:`~attnpool_backbones.inference.sources.Source` has
            them; they are not overwritten, and their folders tell images of the annotations apart.
            Default: none.

    Raises:
        UserError: If the model gives no such output, the annotations cannot be read, or a file of
            the inputs would be overwritten.
    """

    def __init__(
        self,
        folder: Path,
        kinds: Sequence[str],
        is_detector: bool,
        classes: Sequence[str],
        rate: float | None = None,
        annotations: str | None = None,
        has_tags: bool = False,
        is_tagger: bool = False,
        files: Mapping[Path, str] | None = None,
    ) -> None:
        own = 'an ImageTagger' if is_tagger else 'a detector' if is_detector else 'a segmentor'
        if 'class-maps' in kinds and not has_tags:
            raise UserError(
                '--save class-maps: they are those of an image-level head, which this model has '
                "not; type='attnpool_backbones.WithImageHead' in its config gives it one"
            )
        if 'maps' in kinds and own != 'a segmentor':
            raise UserError(f'--save maps: label maps are of segmentors, this is {own}')
        if 'coco' in kinds and own != 'a detector':
            raise UserError(f'--save coco: results of COCO are of detectors, this is {own}')
        self.folder, self.kinds = folder, tuple(kinds)
        self.rate = None if rate is None else _written_rate(rate)
        self._coco: list[dict[str, Any]] = []
        self._images, self._categories = None, range(1, len(classes) + 1)
        if annotations is not None:
            self._images, self._categories = read_annotations(annotations, classes)
        self._paths = {name: os.path.abspath(file) for file, name in (files or {}).items()}
        self._names: dict[str, None] = {}
        self.unlisted: list[str] = []
        self.unwritten: list[str] = []
        self.replaced: list[Path] = []
        self.removed: list[Path] = []
        self._unfinished = ExitStack()
        self._lines: BinaryIO | None = None
        self._video: cv2.VideoWriter | None = None
        self._frames = 0
        self._size = (0, 0)
        self._written: set[str] = set()
        self._made: set[str] = set()
        self._inputs = set(_identities([*(files or ()), *([annotations] if annotations else [])]))
        fixed = dict(json='predictions.jsonl', coco='coco_results.json')
        if rate is not None:
            fixed['pictures'] = 'video.mp4'
        targets = [self._target(fixed[kind]) for kind in fixed.keys() & set(kinds)]
        self._earlier = {path for path in targets if path.is_file()}
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, *(folder / name for name in PICTURE_FOLDERS)):
            self.removed += remove_stale_files(place)

    def write(self, image: np.ndarray, prediction: Detections | Segmentation | Tagged) -> None:
        """Writes one prediction; :attr:`unwritten` gets the pictures that their format cannot hold.

        Args:
            image: H, W, 3 in blue, green, red.
            prediction: Of that image.

        Raises:
            UserError: If a file that is predicted on would be overwritten, the image's name leads
                out of the folder, or the video cannot be written.
        """
        if 'pictures' in self.kinds:
            self._write_picture(draw(image, prediction), prediction.name)
        if 'json' in self.kinds:
            if self._lines is None:
                path = self.folder / 'predictions.jsonl'
                part = self._unfinished.enter_context(unfinished_file(path, flush=False))
                self._lines = self._unfinished.enter_context(part.open('ab', buffering=0))
                self._made.add('predictions.jsonl')
            line = json.dumps(prediction.to_dict(), ensure_ascii=False) + '\n'
            # names of files may be no text, and JSON has escapes for them
            _append(self._lines, line.encode(errors='backslashreplace'))
        if 'coco' in self.kinds:
            self._names[prediction.name] = None
            self._coco += prediction.to_coco(prediction.name, self._categories)
        if 'class-maps' in self.kinds:
            drawn = draw_class_maps(image, prediction.tags, prediction.classes)
            self._save(drawn, 'class_maps', prediction.name, '.jpg')
        if 'maps' in self.kinds:
            self._save(prediction.label_map, 'label_maps', prediction.name, '.png')

    def _save(self, picture: np.ndarray, kind: str, name: str, suffix: str) -> None:
        path = self._path(kind, name, suffix)
        try:
            # a flush for each picture would slow the model down
            write_atomically(encoded_picture(path, picture), path, flush=False)
        except UserError as error:
            self.unwritten.append(str(error))
        else:
            self._made.add(kind)

    def _write_picture(self, drawn: np.ndarray, name: str) -> None:
        if self.rate is None:
            self._save(drawn, 'pictures', name, '.jpg')
            return
        if self._video is None:
            self._size = width, height = drawn.shape[1::-1]
            code = cv2.VideoWriter_fourcc(*_VIDEO)
            path = name_for_opencv(self.folder / 'video.mp4')
            video = cv2.VideoWriter(path, code, self.rate, self._size)
            if not video.isOpened():
                raise UserError(
                    f'{path}: a video of {width}x{height} pixels and {self.rate} frames a second '
                    'cannot be written there'
                )
            self._video = video
            self._made.add('video.mp4')
        # OpenCV drops frames of another size
        is_same = drawn.shape[1::-1] == self._size
        self._video.write(drawn if is_same else cv2.resize(drawn, self._size))
        self._frames += 1

    def _path(self, kind: str, name: str, suffix: str) -> Path:
        """Returns the file for an image; a.jpg, a.png and a.jpg.jpg do not overwrite each other."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or '..' in relative.parts:
            raise UserError(f'{name}: the name of an image that leads out of the folder {kind}')
        own = PurePosixPath(kind, relative.with_suffix(suffix))
        name = relative.name
        while str(own) in self._written:
            name += suffix
            own = own.with_name(name)
        path = self._target(own)
        self._written.add(str(own))
        return path

    def _target(self, name: str | PurePosixPath) -> Path:
        path = self.folder / name
        # by any name, through links and on disks that do not tell A from a
        if self._inputs.intersection(_identities([path])):
            raise UserError(
                f'{path} is an input; it would be overwritten by its prediction. Choose another '
                'folder with --out'
            )
        return path

    def close(self) -> list[Path]:
        """Ends all files.

        :attr:`unlisted` gets the images that the annotations do not have, :attr:`unwritten` a video
        that cannot be read back, :attr:`replaced` what was there of an earlier run.

        Returns:
            What was written.
        """
        # first, and at once: an error or another signal in what follows takes no line away
        self._unfinished.close()
        if self._video is not None:
            self._video.release()
            self._require_frames(self.folder / 'video.mp4')
        if self._names:
            results = json.dumps(self._numbered()).encode()
            write_atomically(results, self.folder / 'coco_results.json')
            self._made.add('coco_results.json')
        names = ('pictures', 'video.mp4', 'predictions.jsonl', 'coco_results.json', 'label_maps',
                 'class_maps')  # fmt: skip
        written = [self.folder / name for name in names if name in self._made]
        self.replaced = [path for path in written if path in self._earlier]
        return written

    def _require_frames(self, path: Path) -> None:
        # OpenCV's writer tells of no error
        capture = cv2.VideoCapture(str(path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if count < self._frames:
            self._made.discard(path.name)
            self.unwritten.append(
                f'{path}: {count} of {self._frames} frames can be read back; is the disk full?'
            )

    def _numbered(self) -> list[dict[str, Any]]:
        """Returns the results with the numbers of their images, which all names together tell."""
        if self._images is None:
            numbers = own_numbers(list(self._names))
        else:
            paths = {name: PurePosixPath(self._paths.get(name, name)) for name in self._names}
            numbers = listed_numbers(paths, self._images)
        self.unlisted = [name for name in self._names if name not in numbers]
        return [
            dict(result, image_id=numbers[result['image_id']])
            for result in self._coco
            if result['image_id'] in numbers
        ]


def _append(file: BinaryIO, line: bytes) -> None:
    """Appends a line to an unbuffered file, whole or not at all."""
    end = file.tell()
    try:
        while line:
            line = line[file.write(line) :]
    except BaseException:  # a full disk or Ctrl-C, after a part
        file.truncate(end)
        raise


def _written_rate(rate: float) -> float:
    """Returns a rate that the codec takes; some videos tell none, or the units of their clock."""
    if not _RATES[0] <= rate <= _RATES[1]:
        return _USUAL_RATE
    return round(rate, 3 if rate * 1000 <= _MOST_UNITS else 2)


def _identities(paths: Iterable[str | Path]) -> Iterator[tuple[int, int]]:
    """Yields device and number of the files that are there."""
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        yield status.st_dev, status.st_ino
