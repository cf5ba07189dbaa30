"""From the pixels of images to what a backbone takes, inside of the graph."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnpool_backbones.command_line import UserError

__all__ = ['ImageInput']


class ImageInput(nn.Module):
    """Normalises and pads as mmdet's and mmseg's data preprocessors do.

    Args:
        preprocessor: Of the model.

    Raises:
        UserError: If it pads to a size of its own.
    """

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        self.swaps_channels = bool(
            getattr(preprocessor, '_channel_conversion', False)
            or getattr(preprocessor, 'channel_conversion', False)
        )
        self.normalises = bool(preprocessor._enable_normalize)
        if self.normalises:
            for name in ('mean', 'std'):
                values = getattr(preprocessor, name).detach().clone().view(1, -1, 1, 1)
                self.register_buffer(name, values)
        padding = getattr(preprocessor, 'test_cfg', None) or {}
        if padding.get('size') is not None:
            raise UserError(
                f'data_preprocessor.test_cfg.size={padding["size"]}: a model that pads all images '
                'to one size cannot be exported; leave it out, or say size_divisor'
            )
        self.divisor = int(
            padding.get('size_divisor') or getattr(preprocessor, 'pad_size_divisor', 1) or 1
        )
        self.fill = float(
            getattr(preprocessor, 'pad_value', None) or getattr(preprocessor, 'pad_val', 0) or 0
        )

    def blank(self) -> tuple[float, ...]:
        """Returns the blue, green and red that become what images are padded with."""
        pixel = torch.full((3,), self.fill)
        if self.normalises:
            pixel = self.mean.flatten() + pixel * self.std.flatten()
        return tuple((pixel.flip(0) if self.swaps_channels else pixel).tolist())

    def forward(self, images: Tensor) -> Tensor:
        """Returns B, 3, H', W' of images B, 3, H, W in blue, green, red, 0 to 255."""
        x = images[:, [2, 1, 0]] if self.swaps_channels else images
        if self.normalises:
            x = (x - self.mean) / self.std
        if self.divisor > 1:
            height, width = x.shape[-2:]
            # in this form sizes stay simple: multiples, where the exporter reasons about them
            bottom, right = (
                (n + self.divisor - 1) // self.divisor * self.divisor - n for n in (height, width)
            )
            x = functional.pad(x, (0, right, 0, bottom), value=self.fill)
        return x
