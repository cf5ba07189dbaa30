"""How an image is made ready for an exported model, as data that a file can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.structures import BaseDataElement

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name
from attnpool_backbones.inference.config_data import require_usual_loading
from attnpool_backbones.registry import TRANSFORMS

__all__ = ['RESIZING', 'Preparation', 'PrepareForFile', 'Resize']

_LEFT_OUT = (
    'LoadImageFromFile', 'LoadAnnotations', 'LoadPanopticAnnotations', 'PackDetInputs',
    'PackSegInputs',
)  # fmt: skip
RESIZING = ('Resize', 'ResizeToMultiple')
"""Steps of a config that a file can hold."""
_MOST = 1 << 16
"""Pixels of a side that a file may ask for."""


@dataclass(frozen=True)
class Resize:
    """One step; as mmcv's ``Resize`` and mmseg's ``ResizeToMultiple``.

    Args:
        scale: Width and height to fit in (or, without ``keep_ratio``, to have). Default: None.
        factor: Times the sides grow, where there is no scale. Default: 1.0.
        keep_ratio: Whether the sides keep their ratio. Default: False.
        divisor: Both sides become the next multiple of it; then nothing else counts. Default: None.
        inside: Whether the sides keep their ratio and neither gets longer than ``scale`` says. With
            ``keep_ratio``, as in mmcv, ``scale`` is a long and a short side, whichever is the
            width. Default: False.
    """

    scale: tuple[int, int] | None = None
    factor: float = 1.0
    keep_ratio: bool = False
    divisor: int | None = None
    inside: bool = False

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Resizes an image H, W, 3."""
        if self.divisor is not None:
            return mmcv.imresize_to_multiple(image, self.divisor, scale_factor=1)
        height, width = image.shape[:2]
        # as mmcv's Resize rounds it
        scale = self.scale or (int(width * self.factor + 0.5), int(height * self.factor + 0.5))
        if self.inside:
            ratio = min(scale[0] / width, scale[1] / height)
            scale = tuple(max(1, int(side * ratio + 0.5)) for side in (width, height))
        if scale == (width, height):
            return image
        if self.keep_ratio and not self.inside:
            return mmcv.imrescale(image, scale)
        return mmcv.imresize(image, scale)


@dataclass(frozen=True)
class Preparation:
    """Steps from an image to the input of a graph, which normalises and pads by itself.

    Args:
        steps: In order.
    """

    steps: tuple[Resize, ...] = ()

    @classmethod
    def of_pipeline(cls, pipeline: Sequence[Mapping[str, Any]]) -> 'Preparation':
        """Reads the test pipeline of a config.

        Raises:
            UserError: If a step loads or changes images in a way that a file cannot say.
        """
        steps = []
        # a file resizes whole numbers
        is_resized = any(type_name(step) in RESIZING for step in pipeline)
        numbers = dict(to_float32=(False,)) if is_resized else {}
        for step in pipeline:
            settings = {k: v for k, v in step.items() if k != 'type'}
            name = type_name(step)
            if settings.get('backend') in (None, 'cv2'):
                settings.pop('backend', None)
            scale, factor = settings.pop('scale', None), settings.pop('scale_factor', None)
            keep_ratio = bool(settings.pop('keep_ratio', False))
            if name == 'LoadImageFromFile':
                require_usual_loading(step, **numbers)
            if name in _LEFT_OUT:
                continue
            if name == 'Resize' and not settings and not isinstance(factor, Sequence):
                if isinstance(scale, int):
                    scale = (scale, scale)
                steps.append(Resize(scale and tuple(scale), factor or 1.0, keep_ratio))
            elif name == 'ResizeToMultiple' and set(settings) <= {'size_divisor'} and not scale:
                steps.append(Resize(divisor=settings.get('size_divisor', 32)))
            else:
                raise UserError(
                    f'the test pipeline has the step {dict(step)}, which an exported file cannot '
                    'hold; Resize (scale or scale_factor, keep_ratio) and ResizeToMultiple '
                    '(size_divisor) are possible'
                )
        return cls(tuple(steps))

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of every image that is ready; None where they depend on the image."""
        size = None
        for step in self.steps:
            if step.scale and not (step.keep_ratio or step.inside or step.divisor):
                size = step.scale[::-1]
            elif size is not None:
                size = step(np.empty((*size, 3), np.uint8)).shape[:2]
        return size

    @classmethod
    def from_data(cls, data: Any) -> 'Preparation':
        """Reads :meth:`to_data`.

        Raises:
            ValueError: If it is something else.
        """
        if not isinstance(data, list) or len(data) > 16:
            raise ValueError('the preparation has to be a list of at most 16 steps')
        steps = []
        for entry in data:
            if not isinstance(entry, dict) or set(entry) - set(Resize.__dataclass_fields__):
                raise ValueError(f'no step of a preparation: {str(entry)[:80]}')
            scale, divisor = entry.get('scale'), entry.get('divisor')
            factor = entry.get('factor', 1.0)
            if scale is not None:
                if not isinstance(scale, list) or len(scale) != 2 or not all(map(_is_side, scale)):
                    raise ValueError(f'scale has to be a width and a height, not {scale!r:.80}')
                scale = tuple(scale)
            if divisor is not None and not (_is_side(divisor) and divisor <= 1024):
                raise ValueError(f'divisor has to be 1 to 1024, not {divisor!r:.80}')
            if not isinstance(factor, (int, float)) or not 0 < factor <= 16:
                raise ValueError(f'factor has to be above 0 and up to 16, not {factor!r:.80}')
            flags = {name: bool(entry.get(name)) for name in ('keep_ratio', 'inside')}
            steps.append(Resize(scale, float(factor), divisor=divisor, **flags))
        return cls(tuple(steps))

    @classmethod
    def into(cls, size: Sequence[int]) -> 'Preparation':
        """Makes images as large as fits into a height and a width."""
        return cls((Resize((size[1], size[0]), inside=True),))

    def to_data(self) -> list[dict[str, Any]]:
        """Returns what JSON can hold."""
        return [
            {k: list(v) if isinstance(v, tuple) else v for k, v in vars(step).items()}
            for step in self.steps
        ]

    def __call__(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Makes an image ready, as a pipeline of transforms does.

        Args:
            results: ``img``: H, W, 3 uint8 in blue, green, red.

        Returns:
            ``inputs`` 3, H', W' uint8 and ``data_samples`` with what became of the size.
        """
        image = results['img']
        height, width = image.shape[:2]
        resized = image
        for step in self.steps:
            resized = step(resized)
        size = resized.shape[:2]
        sample = BaseDataElement(
            metainfo=dict(
                ori_shape=(height, width),
                img_shape=size,
                scale_factor=(size[1] / width, size[0] / height),
            )
        )
        inputs = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return dict(inputs=inputs, data_samples=sample)


@TRANSFORMS.register_module()
class PrepareForFile:
    """Step of a pipeline: makes images ready for an exported file, in the place of resizing.

    Args:
        steps: As :meth:`Preparation.from_data` takes them.
    """

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self.preparation = Preparation.from_data(steps)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resizes ``img``; what is known of the truth stays in pixels of the original image."""
        made = self.preparation(results)
        results.update(
            img=np.ascontiguousarray(made['inputs'].permute(1, 2, 0).numpy()),
            img_shape=made['data_samples'].img_shape,
            scale_factor=made['data_samples'].scale_factor,
        )
        return results


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST
