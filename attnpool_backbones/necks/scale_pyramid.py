"""A feature pyramid from maps of one scale, as XCiT (arXiv 2106.09681) puts it after a column."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from attnpool_backbones.layers.activations import GELU, Activated
from attnpool_backbones.layers.norm import build_map_norm
from attnpool_backbones.registry import MODELS


@MODELS.register_module()
class ScalePyramid(BaseModule):
    """Rescales maps of one stride to a pyramid of strides; channels stay.

    A map is enlarged by 2x2 transposed convolutions of stride 2 (between two of them a norm and a
    GELU), kept, or reduced by max pooling. Stands between a columnar backbone and an FPN or
    a UPerHead.

    For an image of H, W the input maps are ceil(H / ``in_stride``) high and so on. The output of
    stride s has exactly ceil(H / s), ceil(W / s) positions if ``in_stride`` divides H and W (see to
    it in every config: by ``pad_size_divisor`` of a detector, by ``ResizeToMultiple`` in the test
    pipeline of a segmentor), if s >= ``in_stride``, or if ``image_size`` is given to
    :meth:`forward`; otherwise the enlarged maps cover the padded border too, and a segmentor, which
    resizes its map to the image, shifts labels by up to ``in_stride`` - 1 pixels.

    Args:
        in_channels: Channels of the input maps, one number for all.
        in_stride: Stride of the input maps.
        out_strides: Strides of the outputs, ascending; each differs from ``in_stride`` by a power
            of two.
        norm_cfg: Of the norm between two transposed convolutions.
        tap_norm_cfg: Of a norm on each input map. Default: none, as published. Taps are raw
            residual streams, so training from scratch gains by ``dict(type='LN')``.
        init_cfg: Initialisation config of mmengine.

    Raises:
        ValueError: A stride that is no power of two away from ``in_stride``.
    """

    def __init__(
        self,
        in_channels: int,
        in_stride: int = 16,
        out_strides: Sequence[int] = (4, 8, 16, 32),
        norm_cfg: Mapping[str, Any] | None = None,
        tap_norm_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.in_stride = in_stride
        self.out_strides = tuple(out_strides)
        self.out_channels = (in_channels,) * len(self.out_strides)
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        self.rescale = nn.ModuleList(
            self._rescaling(in_channels, stride, norm_cfg) for stride in self.out_strides
        )
        self.tap_norms = nn.ModuleList(
            build_map_norm(dict(tap_norm_cfg), in_channels) if tap_norm_cfg else nn.Identity()
            for _ in self.out_strides
        )

    def _rescaling(self, channels: int, stride: int, norm_cfg: dict) -> nn.Module:
        small, large = sorted((stride, self.in_stride))
        ratio = large // small
        if large % small or ratio & (ratio - 1):
            raise ValueError(
                f'out_strides={self.out_strides} of ScalePyramid must each be '
                f'in_stride={self.in_stride} times a power of two; {stride} is not'
            )
        if ratio == 1:
            return nn.Identity()
        if stride > self.in_stride:
            # ceil_mode: the last row and column of an odd map count too, and a map of one
            # position does not vanish.
            return nn.MaxPool2d(ratio, stride=ratio, ceil_mode=True)
        layers: list[nn.Module] = []
        for _ in range(ratio.bit_length() - 1):
            if layers:
                layers += [build_norm_layer(norm_cfg, channels)[1], GELU()]
            layers.append(nn.ConvTranspose2d(channels, channels, 2, stride=2))
        return Activated(*layers)

    def forward(
        self, inputs: Tensor | Sequence[Tensor], image_size: tuple[int, int] | None = None
    ) -> tuple[Tensor, ...]:
        """Builds the pyramid.

        Args:
            inputs: One map for each of ``out_strides``, or one map for all of them; B, C, h, w.
            image_size: H, W of the images in pixels, to crop enlarged maps to ceil(H / s),
                ceil(W / s).

        Returns:
            One map B, C, H / s, W / s for each s of ``out_strides``.

        Raises:
            ValueError: Another number of maps.
        """
        maps = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if len(maps) == 1:
            maps = maps * len(self.out_strides)
        if len(maps) != len(self.out_strides):
            raise ValueError(
                f'ScalePyramid with out_strides={self.out_strides} takes 1 or '
                f'{len(self.out_strides)} maps, not {len(maps)}'
            )
        outputs = []
        for x, norm, rescale, stride in zip(
            maps, self.tap_norms, self.rescale, self.out_strides, strict=True
        ):
            y = rescale(norm(x))  # B, C, ~H/stride, ~W/stride
            if image_size is not None:
                height, width = ((size + stride - 1) // stride for size in image_size)
                y = y[..., :height, :width]
            # See DenseBackbone.output: mmcv's operators take contiguous maps for granted.
            outputs.append(y.contiguous())
        return tuple(outputs)
