"""Random calls of the functions of `mmcv._ext`, with the odd values that real runs meet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """A call of one function.

    Attributes:
        function: Its name in `mmcv._ext`.
        arguments: By name; results that it writes are zero before.
        results: Names of the arguments that it writes; '' stands for what it returns.
    """

    function: str
    arguments: dict[str, Any]
    results: tuple[str, ...] = field(default=('',))

    def run(self, module: ModuleType) -> list[Any]:
        """Returns the results of a module's function, with copies of the arguments."""
        arguments = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self.arguments.items()
        }
        returned = getattr(module, self.function)(**arguments)
        found = [arguments[name] if name else returned for name in self.results]
        if self.function == 'softnms':  # rows beyond the number of boxes are never read
            found[1] = found[1][: len(found[0])]
        return found


class Draw:
    """Draws from a seed."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, low: int, high: int) -> int:
        """Returns low..high."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def one_of(self, *values: Any) -> Any:
        """Returns one of the values."""
        return values[self.integer(0, len(values) - 1)]

    def uniform(self, *shape: int) -> Tensor:
        """Returns values from 0 to 1."""
        return torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Returns normal values."""
        return torch.randn(*shape, generator=self.generator)

    def whole(self, high: int, *shape: int) -> Tensor:
        """Returns integers below ``high``."""
        return torch.randint(high, shape, generator=self.generator)


def boxes_and_scores(draw: Draw, most: int = 300) -> tuple[Tensor, Tensor]:
    """Draws boxes: on a grid, scattered, inverted, crowded, of no size, not finite; and scores."""
    n = draw.integer(0, 30) if draw.integer(0, 3) else draw.integer(0, most)
    kind = draw.integer(0, 5)
    center, half = draw.uniform(n, 2) * draw.integer(1, 500), draw.uniform(n, 2) * 100
    boxes = torch.cat([center - half, center + half], 1)
    if kind == 0:
        boxes = draw.whole(8, n, 4).float()
    elif kind == 1:
        boxes = draw.uniform(n, 4) * 100 - 50
    elif kind == 2 and n:
        crowds = boxes[: max(1, n // 8)]
        boxes = crowds[draw.whole(len(crowds), n)] + draw.uniform(n, 4) * 5
    elif kind == 3:
        boxes = torch.cat([center, center], 1)
    elif kind == 4 and n:
        odd = draw.one_of(float('nan'), float('inf'), -float('inf'), 1e30)
        boxes[draw.whole(n, 1 + n // 10), draw.whole(4, 1 + n // 10)] = odd
    scores = draw.uniform(n) if draw.integer(0, 1) else draw.whole(4, n) / 3
    if n and draw.integer(0, 3) == 0:
        odd = draw.one_of(float('nan'), float('inf'), -float('inf'), 0.0)
        scores[draw.whole(n, 1 + n // 10)] = odd
    return boxes, scores


def draw_nms(seed: int) -> list[Call]:
    draw = Draw(seed)
    boxes, scores = boxes_and_scores(draw, 1500)
    threshold = draw.one_of(0.0, 0.123, 0.3, 0.5, 0.7, 1.0, -0.1)
    return [
        Call(
            'nms',
            dict(
                boxes=boxes,
                scores=scores,
                iou_threshold=threshold,
                offset=draw.integer(0, 1),
            ),
        )
    ]


def draw_softnms(seed: int) -> list[Call]:
    draw = Draw(seed)
    boxes, scores = boxes_and_scores(draw)
    # Of boxes without an area mmcv's gaussian makes the scores NaN; ours says that it does not.
    even = bool(((boxes[:, 2:] > boxes[:, :2]).all(1) & boxes.isfinite().all(1)).all())
    arguments = dict(
        boxes=boxes,
        scores=scores,
        dets=torch.zeros(len(boxes), 5),
        iou_threshold=draw.one_of(0.0, 0.3, 0.5, 0.7, -0.1),
        sigma=0.5,
        min_score=draw.one_of(1e-3, 0.3, 0.0, -1.0),
        method=draw.integer(0, 2 if even else 1),
        offset=draw.integer(0, 1),
    )
    return [Call('softnms', arguments, ('', 'dets'))]


def draw_nms_match(seed: int) -> list[Call]:
    draw = Draw(seed)
    boxes, scores = boxes_and_scores(draw)
    dets = torch.cat([boxes, scores.unsqueeze(1)], 1)
    threshold = draw.one_of(0.0, 0.3, 0.5, 0.7, 1.0, -0.1)
    return [Call('nms_match', dict(dets=dets, iou_threshold=threshold))] if len(dets) else []


def draw_bbox_overlaps(seed: int) -> list[Call]:
    draw = Draw(seed)
    first, second = (boxes_and_scores(draw, 30)[0] for _ in range(2))
    aligned = bool(draw.integer(0, 1))
    if aligned:
        second = second[: len(first)]
        first = first[: len(second)]
    ious = torch.zeros(len(first)) if aligned else torch.zeros(len(first), len(second))
    arguments = dict(
        bboxes1=first,
        bboxes2=second,
        ious=ious,
        mode=draw.integer(0, 1),
        aligned=aligned,
        offset=draw.integer(0, 1),
    )
    return [Call('bbox_overlaps', arguments, ('ious',))]


def draw_roi_align(seed: int) -> list[Call]:
    draw = Draw(seed)
    batch, channels, rois = draw.integer(1, 3), draw.integer(1, 5), draw.integer(0, 12)
    height, width = (draw.integer(1, 24) if draw.integer(0, 5) else 1 for _ in range(2))
    scale, dtype = draw.one_of(1.0, 0.5, 0.25, 1 / 16, 1 / 28), draw.one_of('float32', 'float64')
    x = draw.normal(batch, channels, height, width)
    extent = torch.tensor([width, height]) / scale
    center = (draw.uniform(rois, 2) * 1.6 - 0.3) * extent
    half = draw.uniform(rois, 2) * extent * draw.one_of(0.5, 1.0, 0.05, 0.0)
    images = draw.whole(batch, rois, 1)
    boxes = torch.cat([images, center - half, center + half], 1)
    if draw.integer(0, 3) == 0:
        boxes = boxes.round()
    mode = draw.integer(0, 1)
    if mode == 0 and draw.integer(0, 1):
        x = x.round()  # equal values
    x, boxes = (t.to(getattr(torch, dtype)) for t in (x, boxes))
    size = draw.integer(1, 7), draw.integer(1, 7)
    output = x.new_zeros(rois, channels, *size)
    arguments = dict(
        rois=boxes,
        argmax_y=torch.zeros_like(output) if mode == 0 else x.new_zeros(0),
        argmax_x=torch.zeros_like(output) if mode == 0 else x.new_zeros(0),
        aligned_height=size[0],
        aligned_width=size[1],
        spatial_scale=scale,
        sampling_ratio=draw.integer(0, 3),
        pool_mode=mode,
        aligned=bool(draw.integer(0, 1)),
    )
    results = ('output', 'argmax_y', 'argmax_x')
    forward = Call('roi_align_forward', dict(input=x, output=output, **arguments), results)
    if mode == 0:
        arguments |= dict(zip(results[1:], forward.run(_ours())[1:], strict=True))
    arguments |= dict(grad_output=draw.normal(*output.shape).to(x), grad_input=torch.zeros_like(x))
    return [forward, Call('roi_align_backward', arguments, ('grad_input',))]


def draw_deform_conv(seed: int) -> list[Call]:
    draw = Draw(seed)
    groups, deform_groups = draw.one_of(1, 2), draw.one_of(1, 2, 4)
    kernel = draw.one_of((1, 1), (3, 3), (3, 2))
    stride, padding = (draw.integer(1, 2), draw.integer(1, 2)), (draw.integer(0, 2), 1)
    dilation = (draw.integer(1, 2), 1)
    size = draw.integer(7, 12), draw.integer(7, 12)
    result = [
        (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    taps = deform_groups * kernel[0] * kernel[1]
    x = draw.normal(draw.integer(1, 3), 4 * draw.integer(1, 2), *size)
    # At zero offsets samples lie on pixels, where gradients jump.
    offset = draw.normal(len(x), 2 * taps, *result) * draw.one_of(0, 1, 5)
    weight = draw.normal(groups * draw.integer(1, 3), x.shape[1] // groups, *kernel)
    bias = draw.normal(len(weight))
    # Version 2 reads larger ones, too.
    larger = [draw.one_of(1, 2) * side for side in result]
    second_offset = draw.normal(len(x), 2 * taps, *larger)
    second_mask = draw.uniform(len(x), taps, *larger)
    output = x.new_zeros(len(x), len(weight), *result)
    grad = draw.normal(*output.shape)
    form = dict(group=groups, deformable_group=deform_groups)
    first = dict(
        kW=kernel[1],
        kH=kernel[0],
        dW=stride[1],
        dH=stride[0],
        padW=padding[1],
        padH=padding[0],
        dilationW=dilation[1],
        dilationH=dilation[0],
        im2col_step=len(x),
        input=x,
        offset=offset,
        columns=x.new_zeros(0),
        **form,
    )
    zeros = {
        name: torch.zeros_like(t)
        for name, t in (('input', x), ('offset', offset), ('weight', weight))
    }
    ones = x.new_zeros(0)
    second = dict(
        input=x,
        weight=weight,
        bias=bias,
        ones=ones,
        offset=second_offset,
        mask=second_mask,
        columns=ones,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=stride[0],
        stride_w=stride[1],
        pad_h=padding[0],
        pad_w=padding[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        with_bias=True,
        **form,
    )
    grads = {f'grad_{name}': zero for name, zero in zeros.items()}
    grads |= dict(grad_offset=torch.zeros_like(second_offset))
    grads |= dict(grad_mask=torch.zeros_like(second_mask))
    grads['grad_bias'] = torch.zeros_like(bias)
    return [
        Call(
            'deform_conv_forward',
            dict(weight=weight, output=output, ones=ones, **first),
            ('output',),
        ),
        Call(
            'deform_conv_backward_input',
            dict(
                gradOutput=grad,
                gradInput=zeros['input'],
                gradOffset=zeros['offset'],
                weight=weight,
                **first,
            ),
            ('gradInput', 'gradOffset'),
        ),
        Call(
            'deform_conv_backward_parameters',
            dict(gradOutput=grad, gradWeight=zeros['weight'], ones=ones, scale=1, **first),
            ('gradWeight',),
        ),
        Call('modulated_deform_conv_forward', dict(output=output, **second), ('output',)),
        Call(
            'modulated_deform_conv_backward',
            dict(grad_output=grad, **grads, **second),
            tuple(grads),
        ),
    ]


def draw_psamask(seed: int) -> list[Call]:
    draw = Draw(seed)
    height, width = draw.integer(1, 9), draw.integer(1, 9)
    mask = draw.integer(1, 12), draw.integer(1, 12)
    x = draw.normal(draw.integer(1, 3), mask[0] * mask[1], height, width)
    output = x.new_zeros(len(x), height * width, height, width)
    form = dict(
        psa_type=draw.integer(0, 1),
        num_=len(x),
        h_feature=height,
        w_feature=width,
        h_mask=mask[0],
        w_mask=mask[1],
        half_h_mask=(mask[0] - 1) // 2,
        half_w_mask=(mask[1] - 1) // 2,
    )
    grads = dict(grad_output=draw.normal(*output.shape), grad_input=torch.zeros_like(x))
    return [
        Call('psamask_forward', dict(input=x, output=output, **form), ('output',)),
        Call('psamask_backward', dict(**grads, **form), ('grad_input',)),
    ]


DRAWS: dict[str, Callable[[int], list[Call]]] = {
    'nms': draw_nms,
    'softnms': draw_softnms,
    'nms_match': draw_nms_match,
    'bbox_overlaps': draw_bbox_overlaps,
    'roi_align': draw_roi_align,
    'deform_conv': draw_deform_conv,
    'psamask': draw_psamask,
}
"""By the operators that mmcv has compiled for the CPU."""


def assert_equal_results(call: Call, computed: list[Any], expected: list[Any]) -> None:
    """Compares results: indices and coordinates exactly, sums up to the order of their terms.

    Where two samples of a bin differ by less than rounding, either may be RoIAlign's maximum.
    """
    if call.function == 'roi_align_forward' and call.arguments['pool_mode'] == 0:
        computed = [computed[0], *_of_equal_maxima(call, computed[1:], expected[1:])]
    for ours, theirs in zip(computed, expected, strict=True):
        if isinstance(theirs, Tensor) and theirs.is_floating_point():
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=3e-5, equal_nan=True)
        elif isinstance(theirs, Tensor):
            assert torch.equal(ours, theirs)
        else:
            assert [np.asarray(a).tolist() for a in ours] == [list(b) for b in theirs]


def _of_equal_maxima(call: Call, computed: list[Tensor], expected: list[Tensor]) -> list[Tensor]:
    """Returns computed positions; the expected ones instead where the map has the same value."""
    x, images = call.arguments['input'], call.arguments['rois'][:, 0].long()
    values, far = [], []
    for y, x_ in (computed, expected):
        values.append(_value_at(x, images, y, x_))
        far.append((y == -1) & (x_ == -1))  # a bin without samples
    rounding = 4 * torch.finfo(x.dtype).eps * x.abs().max()
    same = ((values[0] - values[1]).abs() <= rounding) & (far[0] == far[1])
    return [torch.where(same, b, a) for a, b in zip(computed, expected, strict=True)]


def _value_at(x: Tensor, images: Tensor, y: Tensor, x_: Tensor) -> Tensor:
    """Returns the map's values between pixels, in float64, at positions R, C, bins, bins."""
    index = [images.view(-1, 1, 1, 1), torch.arange(x.shape[1]).view(-1, 1, 1)]
    axes = []
    for position, size in ((y, x.shape[2]), (x_, x.shape[3])):
        position = position.double().clamp(0, size - 1)
        low = position.long()
        after = position - low
        axes.append([(low, 1 - after), ((low + 1).clamp(max=size - 1), after)])
    return sum(
        x.double()[(*index, row, column)] * down * right
        for row, down in axes[0]
        for column, right in axes[1]
    )


def _ours() -> ModuleType:
    from attnpool_backbones.mmcv_operators import extension

    return extension
