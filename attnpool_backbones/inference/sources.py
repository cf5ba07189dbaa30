"""Where images come from: files, folders, patterns, videos, cameras, streams, standard input."""

import glob
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from numbers import Integral
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

import cv2
import numpy as np

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.image_files import IMAGE_SUFFIXES, walk_links
from attnpool_backbones.datasets.limits import (
    BYTES_A_PIXEL,
    MAX_PIXELS,
    InputTooLarge,
    require_depth,
    require_header,
    require_image_size,
    require_pixels,
)
from attnpool_backbones.inference.movie_header import shown_seconds
from attnpool_backbones.inference.writing import FILES, PICTURE_FOLDERS
from attnpool_backbones.pictures import name_for_opencv

__all__ = ['VIDEO_SUFFIXES', 'Frame', 'Source', 'open_source']

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
_CAMERA = re.compile('[0-9]{1,4}')
_STREAMS = ('rtsp', 'rtmp', 'http', 'https')
_IN_ADDRESSES = "%:/?#[]@!$&'()*+,;=~"  # what has a meaning there; the rest may be typed as it is
_PATIENCE = 30.0  # seconds without an answer, as OpenCV waits for a stream
_MISSING = 0.02
"""Share of its frames and of its time that a whole video may lack: what it tells is a guess."""


@dataclass(frozen=True)
class Frame:
    """An image to predict on.

    Args:
        name: Its path below the source, or the number of a frame.
        read: Returns H, W, 3 uint8 in blue, green, red; None if it is no image. Raises UserError if
            it must not be loaded, or has more than 8 bits and would be nearly black.
    """

    name: str
    read: Callable[[], np.ndarray | None]


@dataclass(frozen=True)
class Source:
    """Images one after the other.

    Args:
        frames: May have no end.
        count: How many there are, None if nobody knows.
        rate: Frames of a second of a video, None for single images.
        files: Those that are read -> name of the image, or of the video.
        left_out: How many images of a folder or pattern are predictions of an earlier run.
        others: Ending of the other files of a folder or pattern, which may be images or videos,
            too, but for those of an earlier run -> how many there are.
        closed: What cannot be read, and why: folders below a folder; after the last frame, the rest
            of a video that breaks off.
    """

    frames: Iterator[Frame]
    count: int | None
    rate: float | None = None
    files: Mapping[Path, str] = field(default_factory=dict)
    left_out: int = 0
    others: Mapping[str, int] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)


def open_source(
    source: Any,
    stdin: BinaryIO | None = None,
    max_pixels: int = MAX_PIXELS,
    out: Path | None = None,
) -> Source:
    """Opens what a user names.

    Args:
        source: An image or video file, a folder, a pattern (``'photos/*.jpg'``), ``'camera:0'`` or
            ``0``, the address of a stream or an image, ``'-'`` for standard input (one image, or
            paths line by line), an array H, W, 3 in blue, green, red, or a list of any of these
            images.
        stdin: What ``'-'`` reads. Default: standard input.
        max_pixels: How many pixels an image may have. Default: 2**28.
        out: Folder that predictions go to: pictures that a run has written there are left out of a
            folder or pattern that holds more than them. Default: None, nothing is left out.

    Raises:
        UserError: If there is nothing there, or it cannot be opened.
    """
    if isinstance(source, np.ndarray):
        return Source(iter([_array_frame('image', source)]), 1)
    if isinstance(source, (list, tuple)):
        return _list(source, max_pixels)
    if not isinstance(source, (str, os.PathLike, Integral)):
        raise UserError(_no_image(source))
    text = str(source) if isinstance(source, Integral) else os.fspath(source)
    if text == '-':
        return _standard_input(stdin or sys.stdin.buffer, max_pixels)
    if isinstance(source, Integral) or _CAMERA.fullmatch(text) and not os.path.exists(text):
        return _camera(int(text), max_pixels)
    if text.startswith('camera:'):
        number = text.removeprefix('camera:')
        if not _CAMERA.fullmatch(number):
            raise UserError(f'{text[:60]}: a camera is camera:0, camera:1, ...')
        return _camera(int(number), max_pixels)
    if '://' in text:
        return _stream(text, max_pixels)
    path = Path(text)
    if path.is_dir():
        return _folder(path, max_pixels, out)
    if path.is_file():
        return _file(path, max_pixels)
    if glob.has_magic(text):
        return _pattern(text, max_pixels, out)
    if path.exists():
        raise UserError(f'{path} is no ordinary file; - reads what comes on standard input')
    raise UserError(_nothing_there(path))


def _nothing_there(path: Path) -> str:
    lines = [f'source not found: {path.absolute()}']
    folder = path.absolute().parent
    if folder.is_dir():
        there = sorted(child.name for child in folder.iterdir() if _is_readable(child))
        lines.append(f'that folder has: {", ".join(there[:10]) or "no images and no videos"}')
    lines.append(
        'A source is an image, a folder, a pattern in quotes, a video, camera:0, the address of a '
        'stream or an image, or - for standard input'
    )
    return '\n'.join(lines)


def _is_readable(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES or _is_video(path)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _no_image(source: Any) -> str:
    return (
        f'{type(source).__name__} is no source; in Python a source is a name, an array H, W, 3 of '
        'uint8 in blue, green, red, or a list of names of images and of arrays'
    )


def _list(source: Sequence[Any], max_pixels: int) -> Source:
    """Opens images and arrays; files are called by their path below the folder they share."""
    for image in source:
        if not isinstance(image, (np.ndarray, str, os.PathLike)):
            raise UserError(_no_image(image))
        if not isinstance(image, np.ndarray) and _is_video(Path(image)):
            raise UserError(f'{image}: a video in a list; videos are predicted on one by one')
    paths = [_existing(str(image)) for image in source if not isinstance(image, np.ndarray)]
    files = _names_below(_common_folder(paths), paths)
    frames = [
        _array_frame(f'{index:06d}', image)
        if isinstance(image, np.ndarray)
        else _file_frame(Path(image), files[Path(image)], max_pixels)
        for index, image in enumerate(source)
    ]
    return Source(iter(frames), len(frames), files=files)


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise UserError(_nothing_there(path))
    return path


def _array_frame(name: str, image: np.ndarray) -> Frame:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            f'an array of shape {image.shape} and type {image.dtype}; an image is H, W, 3 of '
            'uint8, blue, green and red'
        )
    return Frame(name, lambda: image)


def _file_frame(path: Path, name: str, max_pixels: int) -> Frame:
    return Frame(name, lambda: _read_file(str(path), max_pixels))


def _read_file(path: str, max_pixels: int) -> np.ndarray | None:
    if require_image_size(path, max_pixels):
        require_depth(path)
    try:
        return _decoded(np.fromfile(path, np.uint8))
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}') from error


def _decoded(content: np.ndarray) -> np.ndarray | None:
    try:
        # mmcv's pipelines read so too: three channels, turned as the EXIF entry says
        return cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error:  # of an empty file, for instance
        return None


def _folder(path: Path, max_pixels: int, out: Path | None) -> Source:
    closed: list[OSError] = []
    there = (
        Path(folder, name)
        for folder, _, names in walk_links(path, closed.append)
        for name in names
        if not name.startswith('.')
    )
    files, others = _images_of(there, out)
    if not files and not closed:
        raise UserError(
            f'{path}: no images in this folder ({", ".join(IMAGE_SUFFIXES)}); videos are named one '
            'by one'
        )
    source = _below(os.path.abspath(path), sorted(files), max_pixels, out)
    return replace(source, others=others, closed=[_fault(error, path) for error in closed])


def _images_of(files: Iterable[Path], out: Path | None) -> tuple[list[Path], Counter[str]]:
    """Returns the files that are images by their names, and how many others have which ending.

    What an earlier run has written into ``out`` is among neither.
    """
    earlier = set() if out is None else {os.path.realpath(out / name) for name in FILES}
    images, others = [], Counter()
    for file in files:
        ending = file.suffix.lower()
        if ending in IMAGE_SUFFIXES:
            images.append(file)
        elif file.name not in FILES or os.path.realpath(file) not in earlier:
            others[ending] += 1
    return images, others


def _fault(error: OSError, root: Path) -> str:
    name = Path(error.filename).relative_to(root).as_posix()
    return f'{name}: {error.filename} cannot be read: {error.strerror}'


def _pattern(text: str, max_pixels: int, out: Path | None) -> Source:
    found = sorted(glob.glob(_pattern_below_folders(text), recursive=True))
    files = [Path(p) for p in found if os.path.isfile(p)]
    images, others = _images_of(files, out)
    if not images:
        raise UserError(f'{text}: {len(files)} files, none of them an image')
    return replace(_below(_common_folder(images), images, max_pixels, out), others=others)


def _pattern_below_folders(text: str) -> str:
    """Escapes the folders of a pattern that are there: brackets in their names are no pattern."""
    parts = text.split(os.sep)
    there = 0
    while there < len(parts) - 1 and os.path.isdir(os.sep.join(parts[: there + 1]) or os.sep):
        there += 1
    return os.sep.join([*map(glob.escape, parts[:there]), *parts[there:]])


def _common_folder(files: Sequence[Path]) -> str:
    # of a path with .. the parts are not the folders that it is in
    folders = [os.path.dirname(os.path.abspath(file)) for file in files]
    return os.path.commonpath(folders) if folders else ''


def _names_below(root: str, files: Iterable[Path]) -> dict[Path, str]:
    return {file: Path(os.path.abspath(file)).relative_to(root).as_posix() for file in files}


def _below(root: str, files: Sequence[Path], max_pixels: int, out: Path | None = None) -> Source:
    earlier = [] if out is None else [(out / kind).resolve() for kind in PICTURE_FOLDERS]
    # who names such a folder itself means it
    earlier = [folder for folder in earlier if not Path(root).resolve().is_relative_to(folder)]
    own = {
        folder
        for folder in {file.parent for file in files}
        if not any(folder.resolve().is_relative_to(other) for other in earlier)
    }
    kept = [file for file in files if file.parent in own]
    if files and not kept:
        raise UserError(
            f'{root}: no images in it but predictions of an earlier run, below {out}; name their '
            'folder itself to predict on them'
        )
    names = _names_below(root, kept)
    frames = (_file_frame(file, names[file], max_pixels) for file in kept)
    return Source(frames, len(kept), files=names, left_out=len(files) - len(kept))


def _file(path: Path, max_pixels: int) -> Source:
    if _is_video(path):
        source = _video(str(path), f'{path}: cannot be read as a video', max_pixels)
        return replace(source, files={path: path.name})
    frame = _file_frame(path, path.name, max_pixels)
    if path.suffix.lower() not in IMAGE_SUFFIXES and frame.read() is None:
        raise UserError(
            f'{path}: neither an image ({", ".join(IMAGE_SUFFIXES)}) nor a video '
            f'({", ".join(VIDEO_SUFFIXES)})'
        )
    return Source(iter([frame]), 1, files={path: path.name})


def _video(address: str | int, failure: str, max_pixels: int, live: bool = False) -> Source:
    capture = cv2.VideoCapture(address if isinstance(address, int) else name_for_opencv(address))
    if capture.isOpened():
        # told by its header, before a frame is decoded
        sides = [capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)]
        require_pixels(f'a frame of {address}', *map(int, sides), max_pixels)
    found, first = capture.read() if capture.isOpened() else (False, None)
    if not found:
        capture.release()
        raise UserError(failure)
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    name = f'camera:{address}' if isinstance(address, int) else address
    closed: list[str] = []
    told = _Told(name, count, rate, live)
    frames = _video_frames(capture, first, told, closed)
    return Source(frames, None if live else count or None, rate, closed=closed)


class _Told(NamedTuple):
    """What a video says of itself."""

    name: str
    count: int
    rate: float
    live: bool


def _video_frames(
    capture: cv2.VideoCapture, first: np.ndarray, told: _Told, closed: list[str]
) -> Iterator[Frame]:
    """Yields the frames of a video; ``closed`` gets where it breaks off."""
    image, index, seconds = first, 0, 0.0
    try:
        while image is not None:
            # after a frame that cannot be read, no time is told
            seconds = max(seconds, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            yield Frame(f'{index:06d}', lambda image=image: image)
            found, image = capture.read()
            image, index = (image if found else None), index + 1
    finally:
        capture.release()
    # counts are too high by a frame or two, or made of a duration and of a rate that varies
    lacks_frames = told.count - index > max(2, _MISSING * told.count)
    if lacks_frames and seconds + 1 / told.rate < (1 - _MISSING) * _whole(told):
        closed.append(
            f'{told.name}: only {index} of {told.count} frames can be read, it is cut off'
        )
    elif told.live and not told.count:
        closed.append(f'{told.name}: the stream ended after {index} frames')


def _whole(told: _Told) -> float:
    """Returns the seconds that a video says it takes."""
    seconds = told.count / told.rate
    shown = None if told.live else shown_seconds(told.name)
    return seconds if shown is None else min(seconds, shown)


def _camera(number: int, max_pixels: int) -> Source:
    devices = sorted(Path('/dev').glob('video*'))
    there = ', '.join(device.name.replace('video', 'camera:') for device in devices)
    # OpenCV writes its own warnings about a camera that is not there
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return _video(
            number,
            f'camera:{number} is not there or cannot be opened; this machine has '
            f'{there or "no cameras"}',
            max_pixels,
            live=True,
        )
    finally:
        cv2.utils.logging.setLogLevel(level)


def _stream(address: str, max_pixels: int) -> Source:
    scheme = address.partition('://')[0]
    if scheme not in _STREAMS:
        raise UserError(f'{address}: streams are {", ".join(_STREAMS)}')
    content = _image_at(address, BYTES_A_PIXEL * max_pixels + 1)
    if content is not None:
        image = _checked_image(content, address, max_pixels)
        name = PurePosixPath(unquote(urlsplit(address).path)).name
        return Source(iter([Frame(name, lambda: image)]), 1)
    failure = f'{address}: no video can be read from there'
    return _video(address, failure, max_pixels, live=True)


def _image_at(address: str, most: int) -> bytes | None:
    """Returns the first bytes of what has the name of an image; None if a video comes instead."""
    try:
        parts = urlsplit(address)
        is_image = PurePosixPath(parts.path).suffix.lower() in IMAGE_SUFFIXES
        if not is_image or parts.scheme not in ('http', 'https'):
            return None
        # many servers refuse the name that Python gives itself
        request = Request(
            quote(address, safe=_IN_ADDRESSES), headers={'User-Agent': 'attnpool_backbones'}
        )
        with urlopen(request, timeout=_PATIENCE) as answer:
            # cameras send pictures one after the other (MJPEG), whatever the name
            is_video = answer.headers.get_content_maintype() in ('multipart', 'video')
            return None if is_video else answer.read(most)
    except HTTPError as error:
        raise UserError(f'{address}: no image can be read from there: {error}') from error
    except (OSError, HTTPException, ValueError):  # OpenCV knows names and passwords, too
        return None


def _checked_image(content: bytes, name: str, max_pixels: int) -> np.ndarray | None:
    """Decodes an image that came as bytes, which may be as many as its pixels make."""
    most = BYTES_A_PIXEL * max_pixels
    if len(content) > most:
        raise InputTooLarge(f'{name}: more than {most} bytes')
    array = np.frombuffer(content, np.uint8)
    if require_header(io.BytesIO(content), name, max_pixels):
        require_depth(name, content=array)
    return _decoded(array)


def _standard_input(stdin: BinaryIO, max_pixels: int) -> Source:
    content = stdin.read(BYTES_A_PIXEL * max_pixels + 1)
    if not content:
        raise UserError('-: nothing came on standard input, neither an image nor paths')
    image = _checked_image(content, 'what came on standard input', max_pixels)
    if image is not None:
        return Source(iter([Frame('stdin', lambda: image)]), 1)
    try:
        lines = [line.strip() for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(
            '-: what came on standard input is no image and no list of paths'
        ) from error
    files = [_existing(line) for line in lines]
    return _below(_common_folder(files), files, max_pixels)
