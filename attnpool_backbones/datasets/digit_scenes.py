"""The built-in data set "digit scenes" as a folder for detection and for segmentation.

What a scene shows, and which digits and photos belong to which split, is told in
:mod:`attnpool_backbones.datasets.digit_rendering`. One folder serves both libraries::

    digit_scenes.json                          manifest: parameters and a digest of every file
    images/{training,validation}/000001.png    RGB
    annotations/{training,validation}/*.png    label maps: 0 = other, 1..10 = digits 0..9
    annotations/instances_{train,val}.json     COCO: run-length masks of what is visible

The same parameters give the same pixels, labels and masks (the manifest's ``pixels`` digests). The
bytes of the PNG files are the same too wherever Pillow was built with the same zlib.
"""

import contextlib
import fcntl
import functools
import glob
import hashlib
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from attnpool_backbones.datasets.child_processes import in_processes
from attnpool_backbones.machine import usable_cores

from .digit_rendering import (
    CLASSES,
    MIN_SIZE,
    PALETTE,
    SIZE,
    SPLITS,
    Instance,
    Scene,
    check_count,
    check_size,
    render_scene,
)
from .records import DIGIT_SCENES

__all__ = [
    'CLASSES',
    'MIN_SIZE',
    'PALETTE',
    'SIZE',
    'SPLITS',
    'TRAIN',
    'VAL',
    'Instance',
    'Scene',
    'generate',
    'render_scene',
    'verify',
]

TRAIN, VAL = DIGIT_SCENES.images['train'], DIGIT_SCENES.images['val']

MAX_SCENES = 1_000_000  # of a split
PARALLEL_FROM = 100  # scenes; fewer are drawn before processes have started

MANIFEST = 'digit_scenes.json'
FORMAT = 'attnpool_backbones digit scenes'
VERSION = 2


def generate(
    root: str | os.PathLike,
    train: int = TRAIN,
    val: int = VAL,
    size: int | tuple[int, int] = SIZE,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Writes the data set, or verifies and keeps the one that is there.

    All is written to a hidden folder beside `root` which is renamed at the end, so `root` is
    either complete or absent; what a killed run left is removed by the next call. Calls for the
    same `root` at the same time wait for each other.

    Args:
        root: folder to make, for instance ``data/digit_scenes``.
        train: number of training scenes.
        val: number of validation scenes.
        size: width and height in pixels, or one number for both; at least 64.
        seed: 0 or more.
        force: make it again even if it is there; only files that this generator wrote are removed.
        progress: called with (scenes done, scenes in all) after each scene.

    Returns:
        The manifest without its list of files: train, val, size (width, height), seed, version,
        digits (number per split), pixels (digest per split); and ``reused``, True if nothing was
        written.

    Raises:
        FileExistsError: `root` holds something that this generator did not write.
        ValueError: `root` has other parameters or is damaged (and `force` is off), or an argument
            is wrong.
        UserError: a process that draws was killed.
    """
    root = Path(root).resolve()  # a link to a larger disk stays a link
    wanted = _parameters(train, val, size, seed)
    if not force and not _leftovers(root) and _is_occupied(root):
        return _reuse(root, wanted)
    if _is_occupied(root) and force:
        _check_removable(root)  # a refusal leaves no lock file beside a folder of others
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        for leftover in _leftovers(root):
            shutil.rmtree(leftover)
        if _is_occupied(root):
            if not force:
                return _reuse(root, wanted)
            _check_removable(root)
        new, old = (root.parent / f'{_partial_prefix(root)}{uuid.uuid4().hex}' for _ in range(2))
        try:
            new.mkdir()
            manifest = _write(new, wanted, progress)
            if _is_occupied(root):
                os.replace(root, old)
            os.replace(new, root)
        finally:
            if old.exists() and not root.exists():
                os.replace(old, root)
            for folder in (new, old):
                shutil.rmtree(folder, ignore_errors=True)
    return _summary(manifest, reused=False)


def verify(
    root: str | os.PathLike,
    train: int | None = None,
    val: int | None = None,
    size: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> dict:
    """Checks that a folder is a complete, undamaged data set.

    Args:
        root: folder made by :func:`generate`.
        train: expected number of training scenes; None accepts any.
        val: expected number of validation scenes; None accepts any.
        size: expected width and height in pixels, or one number for both; None accepts any.
        seed: expected seed; None accepts any.

    Returns:
        The summary described at :func:`generate`.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it.
        FileExistsError: the folder was not made by this generator.
        ValueError: parameters differ, or files are missing, changed or added.
    """
    root = Path(root).resolve()
    if not _is_occupied(root):
        raise FileNotFoundError(
            f'{root} is missing or empty; make it with: python '
            f'tools/dataset_converters/make_digit_scenes.py --out-dir {shlex.quote(str(root))}'
        )
    manifest = _read_manifest(root)
    wanted = {
        'version': VERSION,
        'train': train,
        'val': val,
        'seed': seed,
        'size': None if size is None else list(check_size(size)),
    }
    different = [
        f'{key} is {manifest.get(key)}, not {value}'
        for key, value in wanted.items()
        if value not in (None, manifest.get(key))
    ]
    if different:
        raise ValueError(
            f'{root} holds other digit scenes: {"; ".join(different)}. Choose another '
            'folder, or make it again with --force (force=True).'
        )
    problems = _damage(root, manifest)
    if problems:
        more = f' and {len(problems) - 5} more' if len(problems) > 5 else ''
        raise ValueError(
            f'{root} is damaged: {"; ".join(problems[:5])}{more}. Make it again with '
            '--force (force=True).'
        )
    return _summary(manifest, reused=True)


def _write(folder: Path, wanted: dict, progress: Callable[[int, int], None] | None) -> dict:
    """Writes all files of the data set, the manifest last, and returns the manifest."""
    counts = {split: wanted[split] for split in SPLITS}
    done = 0
    digests, digits = {}, {}
    for split, count in counts.items():
        for kind in ('images', 'annotations'):
            (folder / kind / SPLITS[split]).mkdir(parents=True)
        pixels = hashlib.sha256()
        images, annotations = [], []
        draw = functools.partial(_draw, folder, split, tuple(wanted['size']), wanted['seed'])
        for index, (image, label_map, objects) in enumerate(_in_parallel(draw, count)):
            pixels.update(image.tobytes())
            pixels.update(label_map.tobytes())
            height, width = label_map.shape
            images.append(dict(id=index + 1, file_name=_name(index), width=width, height=height))
            for annotation in objects:
                annotations.append(dict(id=len(annotations) + 1, image_id=index + 1, **annotation))
            done += 1
            if progress is not None:
                progress(done, sum(counts.values()))
        _write_json(
            folder / 'annotations' / f'instances_{split}.json',
            dict(
                info=dict(description=f'{FORMAT}, {split}', version=str(VERSION)),
                licenses=[],
                images=images,
                annotations=annotations,
                categories=[
                    dict(id=i, name=name, supercategory='digit')
                    for i, name in enumerate(CLASSES, 1)
                ],
            ),
        )
        digests[split], digits[split] = pixels.hexdigest(), len(annotations)
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in _files(folder)}
    manifest = dict(wanted, digits=digits, pixels=digests, files=files)
    _write_json(folder / MANIFEST, manifest)
    return manifest


def _name(index: int) -> str:
    return f'{index + 1:06d}.png'


def _draw(
    folder: Path, split: str, size: tuple[int, int], seed: int, index: int
) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Writes the two pictures of a scene; returns image, label map and COCO annotations."""
    scene = render_scene(index, split, size, seed)
    label_map = scene.label_map()
    for kind, array in (('images', scene.image), ('annotations', label_map)):
        path = folder / kind / SPLITS[split] / _name(index)
        Image.fromarray(array).save(path, compress_level=3)
    return scene.image, label_map, [_coco_annotation(instance) for instance in scene.instances]


def _in_parallel(draw: Callable[[int], tuple], count: int) -> Iterator[tuple]:
    """Yields ``draw(0)``, ``draw(1)`` ... in order, from as many processes as there are cores."""
    cores = usable_cores()
    if cores == 1 or count < PARALLEL_FROM:
        yield from map(draw, range(count))
        return
    yield from in_processes(draw, count, min(cores, 8), chunk=8)


def _coco_annotation(instance: Instance) -> dict:
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(instance.mask, np.uint8))
    rows, columns = (np.flatnonzero(instance.mask.any(axis)) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    return dict(
        category_id=instance.label + 1,
        bbox=[left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        area=int(instance.mask.sum()),
        iscrowd=0,
        segmentation=dict(size=list(rle['size']), counts=rle['counts'].decode('ascii')),
    )


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, separators=(',', ':')) + '\n', encoding='utf-8')


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob('*') if not path.is_dir() and path.name != MANIFEST)


def _summary(manifest: dict, reused: bool) -> dict:
    return dict({key: value for key, value in manifest.items() if key != 'files'}, reused=reused)


def _reuse(root: Path, wanted: dict) -> dict:
    return verify(root, *(wanted[key] for key in ('train', 'val', 'size', 'seed')))


def _read_manifest(root: Path) -> dict:
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding='utf-8'))
        ours = manifest['format'] == FORMAT and isinstance(manifest['files'], dict)
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise FileExistsError(
            f'{root} has no readable {MANIFEST}, so it is not (or no longer) known to be a folder '
            'of digit scenes and is left as it is. Choose another folder or remove it yourself.'
        )
    return manifest


def _damage(root: Path, manifest: dict) -> list[str]:
    found = {path.relative_to(root).as_posix(): path for path in _files(root)}
    problems = []
    for name, digest in manifest['files'].items():
        if name not in found:
            problems.append(f'{name} is missing')
        elif _digest(found[name]) != digest:
            problems.append(f'{name} was changed')
    # mmseg takes every picture that it finds in a folder.
    added = [name for name in found if name.endswith('.png') and name not in manifest['files']]
    return problems + [f'{name} does not belong there' for name in added]


def _check_removable(root: Path) -> None:
    known = _read_manifest(root)['files']
    foreign = [
        name for path in _files(root) if (name := path.relative_to(root).as_posix()) not in known
    ]
    if foreign:
        raise FileExistsError(
            f'{root} holds files that are not of the digit scenes and would be '
            f'lost: {", ".join(foreign[:5])}. Move them away first.'
        )


def _is_occupied(root: Path) -> bool:
    """A missing or an empty folder is free to use, anything else is not."""
    return root.exists() and not (root.is_dir() and not any(root.iterdir()))


def _partial_prefix(root: Path) -> str:
    return f'.{root.name}.partial-'


def _leftovers(root: Path) -> list[Path]:
    return sorted(root.parent.glob(glob.escape(_partial_prefix(root)) + '*'))


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lets one process at a time write `root`; the system frees the lock of a killed one."""
    with open(root.parent / f'.{root.name}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parameters(train: int, val: int, size: int | tuple[int, int], seed: int) -> dict:
    check_count('train', train, 1, MAX_SCENES)
    check_count('val', val, 1, MAX_SCENES)
    check_count('seed', seed, 0)
    return dict(
        format=FORMAT, version=VERSION, train=train, val=val, size=list(check_size(size)), seed=seed
    )
