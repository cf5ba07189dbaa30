"""What an exported file says about itself. It is data: nothing in it is run or looked up."""

import json
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from attnpool_backbones.inference.preparation import Preparation, Resize

__all__ = ['KEY', 'Facts']

KEY = 'attnpool_backbones'
"""Name of the metadata entry."""
_FORMAT = 1
_LONGEST = 1 << 20
"""Characters of the entry."""
_CLASSES = 100_000
_NAME = 200
_SIDE = 1 << 16


@dataclass(frozen=True)
class Facts:
    """What a graph does not say.

    Args:
        task: ``'detection'`` or ``'segmentation'``.
        classes: Names, by label.
        palette: Red, green and blue of each class.
        preparation: Of images.
        score: Smallest score that the graph gives.
        mask: Probability from which on a pixel belongs to an object; None without masks.
        binary: Probability from which on a pixel has label 1, where two classes share a logit;
            None for others. Default: None.
        size: Height and width of all images, None where any will do. Default: None.
        batch: Images at once, None where any number will do. Default: None.
        smallest: Pixels of the smallest side where any size will do. Default: 32.
        fill: Blue, green and red around an image that is smaller than the graph's. Default: black,
            as in files of before.
        made: By what the file was made, for people. Default: nothing.
    """

    task: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    preparation: Preparation
    score: float
    mask: float | None
    binary: float | None = None
    size: tuple[int, int] | None = None
    batch: int | None = None
    smallest: int = 32
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    made: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the metadata entry."""
        data = asdict(replace(self, preparation=Preparation()))
        return json.dumps(
            dict(data, format=_FORMAT, preparation=self.preparation.to_data()), ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> 'Facts':
        """Reads the metadata entry of a file, which may be anybody's.

        Raises:
            ValueError: If it is something else; the message says what.
        """
        if len(text) > _LONGEST:
            raise ValueError(f'the metadata has {len(text)} characters, at most {_LONGEST} may be')
        try:
            data = json.loads(text)
        except RecursionError as error:
            raise ValueError('the metadata is nested too deeply') from error
        if not isinstance(data, dict):
            raise ValueError('the metadata is no table')
        if data.pop('format', None) != _FORMAT:
            raise ValueError('the metadata is of another version of attnpool_backbones')
        unknown = set(data) - set(cls.__dataclass_fields__)
        lacking = {'task', 'classes', 'palette', 'preparation', 'score', 'mask'} - set(data)
        if unknown or lacking:
            raise ValueError(f'the metadata lacks {sorted(lacking)}, unknown is {sorted(unknown)}')
        _require(data['task'] in ('detection', 'segmentation'), 'task', data['task'])
        classes, palette = data['classes'], data['palette']
        _require(_is_list(classes, _is_name, range(1, _CLASSES + 1)), 'classes', classes)
        _require(_is_list(palette, _is_colour, [len(classes)]), 'palette', palette)
        for name in ('score', 'mask', 'binary'):
            value = data.get(name)
            allowed = _is_number(value, 0, 1) or value is None and name != 'score'
            _require(allowed, name, value)
        size, batch = data.get('size'), data.get('batch')
        _require(size is None or _is_list(size, _is_side, [2]), 'size', size)
        _require(batch is None or _is_whole(batch, 1, 1024), 'batch', batch)
        _require(_is_side(data.get('smallest', 32)), 'smallest', data.get('smallest'))
        fill = data.get('fill', [0.0, 0.0, 0.0])
        _require(_is_list(fill, _is_number, [3]), 'fill', fill)
        made = data.get('made', {})
        _require(
            isinstance(made, dict) and all(isinstance(v, str) for v in made.values()), 'made', made
        )
        preparation = Preparation.from_data(data['preparation'])
        if size is not None and preparation == Preparation(
            (Resize((size[1], size[0]), keep_ratio=True),)
        ):
            # files from before there was `inside`
            preparation = Preparation.into(size)
        return cls(
            **dict(
                data,
                classes=tuple(classes),
                palette=tuple(map(tuple, palette)),
                preparation=preparation,
                size=size and tuple(size),
                fill=tuple(fill),
            )
        )


def _require(condition: bool, name: str, value: Any) -> None:
    if not condition:
        raise ValueError(f'{name} cannot be {str(value)[:80]!r}')


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any, least: float = -1e6, most: float = 1e6) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and least <= value <= most


def _is_side(value: Any) -> bool:
    return _is_whole(value, 1, _SIDE)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _NAME


def _is_colour(value: Any) -> bool:
    return _is_list(value, lambda channel: _is_whole(channel, 0, 255), [3])


def _is_list(value: Any, is_right: Callable[[Any], bool], lengths: Container[int]) -> bool:
    return isinstance(value, list) and len(value) in lengths and all(map(is_right, value))
