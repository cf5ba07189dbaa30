"""Draws digit scenes in memory: real handwritten digits on real photos, with their masks.

The digits are the 1797 8x8 scans of ``sklearn.datasets.load_digits``, the photos the two of
``sklearn.datasets.load_sample_images`` (427x640). Nothing is downloaded.

Split, the same for every seed, so that data of two seeds never leak into one another:

- digits: of each class, every fifth scan belongs to ``val``, the others to ``train``. The same
  people wrote for both;
- photos: ``train`` crops from columns 0..383 of a photo, ``val`` from columns 384..639; a crop
  never leaves its region, so no pixel is shared.

Every scene has random streams of its own, derived from seed, split and index, so changing the
counts leaves the other scenes as they are. Only integers are drawn, and glyphs, masks and colours
are computed in integers: masks and labels are the same on every machine. Pixels also depend on how
Pillow decodes and scales the photos.
"""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
PALETTE = [
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (170, 255, 195),
    (128, 0, 0),
]

SIZE = (192, 192)  # width, height
MIN_SIZE = 64
MAX_SIZE = 8192

MAX_DIGITS = 6
DIGIT_HEIGHT = (20, 72)  # pixels in a scene whose shorter side is 192; scales with that side
DUSK = 160  # brightness of the photos, in 1/256
MAX_HIDDEN = 0.3  # of any digit, by all later ones together

SPLITS = {'train': 'training', 'val': 'validation'}  # COCO's names and ADE's folders
PHOTO_COLUMNS = {'train': (0, 384), 'val': (384, 640)}
VAL_EVERY = 5

# Tries to place one digit before the scene goes on with fewer.
_TRIES = 25
_GEOMETRY, _APPEARANCE = 0, 1

# Catmull-Rom weights of the four neighbours at t / 256, times 2**25, in integers.
_T = np.arange(256, dtype=np.int64)
_WEIGHTS = np.stack(
    [
        -(256 * 256 * _T) + 512 * _T**2 - _T**3,
        2 * 256**3 - 5 * 256 * _T**2 + 3 * _T**3,
        256 * 256 * _T + 4 * 256 * _T**2 - 3 * _T**3,
        -(256 * _T**2) + _T**3,
    ],
    axis=1,
)


class Instance(NamedTuple):
    """One digit of a scene.

    Attributes:
        label: the digit, 0..9.
        mask: H, W bool, the visible pixels.
        area: number of pixels before other digits hid some.
        source: index of the scan in ``sklearn.datasets.load_digits``.
    """

    label: int
    mask: np.ndarray
    area: int
    source: int


class Scene(NamedTuple):
    """One picture with its truth.

    Attributes:
        image: H, W, 3 uint8, RGB.
        instances: 1 to 6 digits in drawing order, a later one lies above an earlier one.
        photo: index of the photo in ``sklearn.datasets.load_sample_images``.
        crop: left, top, right, bottom in pixels of the photo, the end excluded.
    """

    image: np.ndarray
    instances: list[Instance]
    photo: int
    crop: tuple[int, int, int, int]

    def label_map(self) -> np.ndarray:
        """Returns H, W uint8: 0 = other, 1..10 = digits 0..9."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for instance in self.instances:
            labels[instance.mask] = instance.label + 1
        return labels


class _Glyph(NamedTuple):
    """A digit before it is placed: h, w opacity 0..255, its class, scan and position."""

    alpha: np.ndarray
    label: int
    source: int
    top: int
    left: int

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the scans, N, 8, 8 with 0..16, and their classes, N."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.int64), bunch.target.astype(np.int64)


@functools.cache
def _photos() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(load_sample_images().images)


@functools.cache
def digit_sources(split: str) -> tuple[tuple[int, ...], ...]:
    """Returns, for each class 0..9, which scans of ``load_digits`` a split draws from."""
    _check_split(split)
    targets = _digits()[1]
    sources = []
    for label in range(len(CLASSES)):
        indices = np.flatnonzero(targets == label)
        held_out = np.arange(len(indices)) % VAL_EVERY == VAL_EVERY - 1
        sources.append(tuple(indices[held_out if split == 'val' else ~held_out].tolist()))
    return tuple(sources)


def render_scene(
    index: int, split: str = 'train', size: int | tuple[int, int] = SIZE, seed: int = 0
) -> Scene:
    """Makes one scene in memory.

    Args:
        index: which scene of the split, from 0 on; scene i is written as file i + 1.
        split: 'train' or 'val'.
        size: width and height in pixels, or one number for both; at least 64.
        seed: of the whole data set, 0 or more.

    Returns:
        The picture with its digits; the same arguments give the same scene.

    Raises:
        ValueError: for an unknown split, a size below 64 or a negative index or seed.
    """
    _check_split(split)
    width, height = check_size(size)
    check_count('index', index, 0)
    check_count('seed', seed, 0)
    # Two streams: where digits lie never depends on the pixels of a photo.
    rng, paint_rng = (_stream(seed, split, index, purpose) for purpose in (_GEOMETRY, _APPEARANCE))
    glyphs, owner = _place_digits(rng, split, width, height)
    image, photo, crop = _background(paint_rng, split, width, height)
    for glyph in glyphs:
        _paint(paint_rng, image, glyph)
    instances = [
        Instance(glyph.label, owner == number, int(_solid(glyph.alpha).sum()), glyph.source)
        for number, glyph in enumerate(glyphs, 1)
    ]
    return Scene(image.astype(np.uint8), instances, photo, crop)


def _stream(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    entropy = (seed, list(SPLITS).index(split), index, purpose)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    """Draws an integer from low..high, both included."""
    return int(rng.integers(low, high + 1))


def _solid(alpha: np.ndarray) -> np.ndarray:
    return alpha >= 128


def _place_digits(
    rng: np.random.Generator, split: str, width: int, height: int
) -> tuple[list[_Glyph], np.ndarray]:
    """Draws 1 to 6 digits and where they lie.

    Returns:
        The glyphs in drawing order, and H, W with the number (from 1) of the digit on top of each
        pixel, 0 where there is none.
    """
    owner = np.zeros((height, width), np.int64)
    glyphs: list[_Glyph] = []
    areas = [0]
    # The larger of two draws: 4.5 digits on average, so that a short training sees many.
    wanted = max(_between(rng, 1, MAX_DIGITS) for _ in range(2))
    for _ in range(wanted):
        for _ in range(_TRIES):
            glyph = _draw_glyph(rng, split, width, height)
            solid = _solid(glyph.alpha)
            below = owner[glyph.window]
            # A digit written for the most part on other strokes could not be read itself.
            if (below[solid] > 0).sum() > MAX_HIDDEN * solid.sum():
                continue
            after = owner.copy()
            after[glyph.window][solid] = len(glyphs) + 1
            visible = np.bincount(after.ravel(), minlength=len(areas))
            if all(visible[k] >= (1 - MAX_HIDDEN) * areas[k] for k in range(1, len(areas))):
                glyphs.append(glyph)
                areas.append(int(solid.sum()))
                owner = after
                break
    return glyphs, owner


def _draw_glyph(rng: np.random.Generator, split: str, width: int, height: int) -> _Glyph:
    short = min(width, height)
    low, high = (max(1, round(limit * short / 192)) for limit in DIGIT_HEIGHT)
    label = _between(rng, 0, len(CLASSES) - 1)
    sources = digit_sources(split)[label]
    source = sources[_between(rng, 0, len(sources) - 1)]
    while True:
        alpha = _render_glyph(
            _digits()[0][source],
            height=_between(rng, low, high),
            slope=_between(rng, -8, 8),
            shear=_between(rng, -8, 8),
            stretch=_between(rng, 92, 108),
            threshold=_between(rng, 36, 52),
        )
        # Turning and thickening change the height, hence the check on what was really drawn.
        if low <= np.ptp(np.flatnonzero(_solid(alpha).any(1))) + 1 <= high:
            break
    top = _between(rng, 0, height - alpha.shape[0])
    left = _between(rng, 0, width - alpha.shape[1])
    return _Glyph(alpha, label, source, top, left)


def _render_glyph(
    scan: np.ndarray, height: int, slope: int, shear: int, stretch: int, threshold: int
) -> np.ndarray:
    """Enlarges a scan to a smooth stroke, in integers only.

    Args:
        scan: 8, 8 with 0..16.
        height: of the 8 rows in pixels.
        slope: tangent of half the angle of rotation, in 1/128.
        shear: horizontal, in 1/64.
        stretch: of the width, in percent.
        threshold: ink level at the stroke's edge, in percent of the darkest; less is thicker.

    Returns:
        h, w int64 opacity 0..255, cropped to the stroke.
    """
    rows = scan.shape[0]
    # Rotation, shear and stretch reach less than 13 cells; a cell is height / rows pixels.
    side = 13 * height // rows + 2
    # Twice the offset from the centre, so that pixel centres are integers.
    offset = 2 * np.arange(side) + 1 - side
    x, y = offset[None, :], offset[:, None]
    # Cosine and sine of the angle over their common denominator: no libm, the same everywhere.
    cosine, sine, norm = 128 * 128 - slope * slope, 2 * 128 * slope, 128 * 128 + slope * slope
    turned_x, turned_y = cosine * x + sine * y, cosine * y - sine * x
    # Positions in 1/256 cell; the scan's centre is at rows / 2 - 1/2 cells.
    centre = 128 * (rows - 1)
    u = centre + (64 * turned_x + shear * turned_y) * 200 * rows // (norm * height * stretch)
    v = centre + turned_y * 128 * rows // (norm * height)
    ink = _interpolate(scan, u, v)
    peak = int(ink.max())
    # The edge fades over about 1.5 pixels at any size: a steeper ramp for larger digits.
    ramp = max(1, peak * rows * 3 // (4 * height))
    alpha = np.clip(128 + (100 * ink - threshold * peak) * 255 // (100 * ramp), 0, 255)
    rows_used, columns_used = (np.flatnonzero(alpha.any(axis)) for axis in (1, 0))
    return alpha[rows_used[0] : rows_used[-1] + 1, columns_used[0] : columns_used[-1] + 1]


def _interpolate(scan: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Catmull-Rom interpolation of a scan that is 0 outside.

    Args:
        scan: 8, 8 with 0..16.
        u: h, w columns in 1/256 cell.
        v: h, w rows in 1/256 cell.

    Returns:
        h, w int64 ink in 1/4096 of a scan's unit, up to about 16 * 4096.
    """
    margin = 10
    cells = np.pad(scan, margin)
    column, row = (np.clip((p >> 8) + margin, 1, cells.shape[0] - 3) for p in (u, v))
    across, down = (_WEIGHTS[p & 255] for p in (u, v))
    total = np.zeros(u.shape, np.int64)
    for j in range(4):
        line = sum(across[..., i] * cells[row + j - 1, column + i - 1] for i in range(4))
        total += down[..., j] * line
    # Each weight is scaled by 2**25.
    return total >> 38


def _background(
    rng: np.random.Generator, split: str, width: int, height: int
) -> tuple[np.ndarray, int, tuple[int, int, int, int]]:
    """Returns H, W, 3 int64 with 0..255, the photo's index and the crop."""
    photos = _photos()
    photo = _between(rng, 0, len(photos) - 1)
    rows = photos[photo].shape[0]
    # The same range of zooms in both splits: relative to the narrower region.
    columns = min(right - left for left, right in PHOTO_COLUMNS.values())
    percent = _between(rng, 45, 100)
    crop_width = max(1, min(columns, rows * width // height) * percent // 100)
    crop_height = max(1, min(rows, columns * height // width) * percent // 100)
    first, end = PHOTO_COLUMNS[split]
    left = _between(rng, first, end - crop_width)
    top = _between(rng, 0, rows - crop_height)
    crop = (left, top, left + crop_width, top + crop_height)
    # Cut before scaling: the filter must not see pixels beyond the crop.
    piece = Image.fromarray(photos[photo]).crop(crop).resize((width, height), Image.BICUBIC)
    image = np.asarray(piece).astype(np.int64)
    if _between(rng, 0, 1):
        image = image[:, ::-1]
    contrast, brightness = _between(rng, 140, 280), _between(rng, -30, 30)
    tint = np.array([_between(rng, -14, 14) for _ in range(3)])
    image = np.clip(128 + ((image - 128) * contrast >> 8) + brightness + tint, 0, 255)
    # As at dusk, so that a lighter colour is left for every digit.
    image = image * DUSK >> 8
    return image, photo, crop


def _luma(colours: np.ndarray) -> np.ndarray:
    """Returns the brightness, 0..255, of ..., 3 RGB."""
    return (colours @ np.array([77, 150, 29])) >> 8


def _paint(rng: np.random.Generator, image: np.ndarray, glyph: _Glyph) -> None:
    """Blends a digit into H, W, 3, in place, in a colour that stands out where it lies."""
    window = image[glyph.window]
    # Of three colours the one that is farthest from what lies there, strokes of others included:
    # from all but the tenth of the pixels that is most like it.
    colours = [_draw_colour(rng, _luma(window)) for _ in range(3)]
    distances = [np.sort(np.abs(window - colour).max(-1), axis=None) for colour in colours]
    best = max(range(3), key=lambda k: distances[k][distances[k].size // 10])
    weight = (glyph.alpha * _between(rng, 215, 255))[..., None]
    window[:] = (window * (255 * 255 - weight) + colours[best] * weight + 32512) // (255 * 255)


def _draw_colour(rng: np.random.Generator, under: np.ndarray) -> np.ndarray:
    """Draws a pale or strong colour that is lighter than what lies under it (h, w, 0..255)."""
    level = int(under.sum()) // under.size
    spread = int(np.abs(under - level).sum()) // under.size
    target = min(level + _between(rng, 90, 160) + spread // 2, 250)
    hue = np.array([_between(rng, -100, 100) for _ in range(3)])
    # Clipping at 0 and 255 moves the brightness of strong colours: take the strongest that stays.
    for strength in range(_between(rng, 0, 4), -1, -1):
        colour = np.clip(target + (hue - _luma(hue)) * strength // 4, 0, 255)
        if abs(int(_luma(colour)) - target) <= 8:
            break
    return colour


def check_count(name: str, value: int, least: int, most: int = 2**63) -> None:
    """Raises ValueError unless a value is an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        limit = f'of at least {least}' if most == 2**63 else f'from {least} to {most}'
        raise ValueError(f'{name} must be an integer {limit}, got {value!r}')


def check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns width and height of a size given as two numbers or one, or raises ValueError."""
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(
        isinstance(side, int) and MIN_SIZE <= side <= MAX_SIZE for side in pair
    ):
        raise ValueError(
            f'size must be one or two integers (width, height) of at least {MIN_SIZE} and at most '
            f'{MAX_SIZE}, got {size!r}'
        )
    return pair


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
