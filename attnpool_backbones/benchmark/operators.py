"""Operators of mmcv as workloads: ours, and mmcv's compiled ones where they are installed.

A case's model is ``mmcv.NAME``, its size that of the map (or the number of boxes and 1), its form
``'ours'`` or ``'compiled'``, its task ``'forward'`` or ``'backward'``.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.command_line import UserError
from attnpool_backbones.compatibility import BUILD_MMCV, serving_operators

PREFIX = 'mmcv.'
TINY = (6, 8)
"""Size of a case for loading an operator's code."""


@dataclass(frozen=True)
class Calls:
    """Functions of `mmcv._ext` and their arguments; results are written into arguments."""

    forward: tuple[str, dict[str, Any]]
    backward: tuple[tuple[str, dict[str, Any]], ...] = field(default=())

    def of(self, task: str) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Returns the calls of a task."""
        return (self.forward,) if task == 'forward' else self.backward


class OperatorWorkload:
    """A case of an operator, ready to run; like :class:`.models.Workload`.

    Args:
        case: What to run.
        device: ``'cpu'`` or ``'cuda'``.

    Raises:
        UserError: The operator is unknown, or the compiled ones are not installed.
    """

    def __init__(self, case: Case, device: str):
        name = case.model.removeprefix(PREFIX)
        if name not in OPERATORS:
            raise UserError(f"unknown operator '{case.model}', choose from {sorted(OPERATORS)}")
        self.case, self.device = case, device
        self.module = _ours() if case.form == 'ours' else _compiled()
        torch.manual_seed(0)
        self.calls = OPERATORS[name](*case.size, batch=case.batch).of(case.task)
        if not self.calls:
            raise UserError(f'{case.model} has no backward pass')
        for _, arguments in self.calls:
            for key, value in arguments.items():
                if isinstance(value, Tensor):
                    arguments[key] = value.to(device)

    def clear(self) -> None:
        """Has nothing to forget."""

    def run(self) -> None:
        """Runs the operator, and waits for its end."""
        for function, arguments in self.calls:
            getattr(self.module, function)(**arguments)
        if self.device == 'cuda':
            torch.cuda.synchronize()

    forward = run


def is_operator(model: str) -> bool:
    """Tells whether a case's model is an operator of mmcv."""
    return model.startswith(PREFIX)


def _ours() -> ModuleType:
    return importlib.import_module('attnpool_backbones.mmcv_operators.extension')


def _compiled() -> ModuleType:
    module = importlib.import_module('mmcv._ext')
    if not serving_operators(module).startswith('compiled'):
        raise UserError(
            f'mmcv has no compiled operators here to compare with: OPS=compiled make setup, or '
            f'{BUILD_MMCV}'
        )
    return module


# ------------------------------------------------------------------ what is measured


def _boxes(count: int) -> tuple[Tensor, Tensor]:
    """Returns boxes of 12 to 250 pixels over an image of 800x1333, and scores."""
    center = torch.rand(count, 2) * torch.tensor([1333.0, 800.0])
    half = torch.exp(torch.rand(count, 2) * 3 + 2.5) / 2
    return torch.cat([center - half, center + half], 1), torch.rand(count)


def _nms(count: int, classes: int, **_: int) -> Calls:
    boxes, scores = _boxes(count)
    # as batched_nms moves classes apart
    boxes = boxes + (torch.randint(classes, (count, 1)) * (boxes.max() + 1))
    return Calls(('nms', dict(boxes=boxes, scores=scores, iou_threshold=0.7, offset=0)))


def _soft_nms(count: int, _classes: int, **_: int) -> Calls:
    boxes, scores = _boxes(count)
    form = dict(iou_threshold=0.3, sigma=0.5, min_score=1e-3, method=1, offset=0)
    dets = torch.empty(count, 5)
    return Calls(('softnms', dict(boxes=boxes, scores=scores, dets=dets, **form)))


def _nms_match(count: int, _classes: int, **_: int) -> Calls:
    boxes, scores = _boxes(count)
    dets = torch.cat([boxes, scores.unsqueeze(1)], 1)
    return Calls(('nms_match', dict(dets=dets, iou_threshold=0.5)))


def _overlaps(count: int, _classes: int, **_: int) -> Calls:
    first, second = _boxes(count)[0], _boxes(100)[0]
    ious = torch.empty(count, 100)
    form = dict(mode=0, aligned=False, offset=0)
    return Calls(('bbox_overlaps', dict(bboxes1=first, bboxes2=second, ious=ious, **form)))


def _roi_align(mode: int, channels: int, rois: int, whole: bool = False) -> Callable:
    def make(height: int, width: int, batch: int) -> Calls:
        x = torch.randn(batch, channels, height, width)
        extent = torch.tensor([width, height])
        center, half = torch.rand(rois, 2) * extent, torch.rand(rois, 2) * extent / 4
        boxes = torch.cat([(center - half).clamp(min=0), torch.minimum(center + half, extent)], 1)
        if whole:
            boxes = torch.cat([torch.zeros(rois, 2), extent.expand(rois, 2)], 1)
        output = torch.zeros(rois, channels, 7, 7)
        where = torch.zeros_like(output) if mode == 0 else torch.zeros(0)
        form = dict(
            rois=torch.cat([torch.randint(batch, (rois, 1)), boxes], 1),
            argmax_y=where,
            argmax_x=where.clone(),
            aligned_height=7,
            aligned_width=7,
            spatial_scale=1.0,
            sampling_ratio=0,
            pool_mode=mode,
            aligned=True,
        )
        if mode == 0:
            _ours().roi_align_forward(input=x, output=output, **form)
        grads = dict(grad_output=torch.randn_like(output), grad_input=torch.zeros_like(x))
        return Calls(
            ('roi_align_forward', dict(input=x, output=output, **form)),
            (('roi_align_backward', dict(**grads, **form)),),
        )

    return make


def _deform_conv(height: int, width: int, batch: int) -> Calls:
    x, weight = torch.randn(batch, 256, height, width), torch.randn(256, 256, 3, 3)
    offset, empty = torch.randn(batch, 18, height, width), torch.zeros(0)
    form = dict(kW=3, kH=3, dW=1, dH=1, padW=1, padH=1, dilationW=1, dilationH=1)
    form |= dict(group=1, deformable_group=1, im2col_step=batch)
    form |= dict(input=x, offset=offset, columns=empty)
    grad = dict(gradOutput=torch.randn_like(x), **form)
    zeros = dict(gradInput=torch.zeros_like(x), gradOffset=torch.zeros_like(offset))
    weights = dict(gradWeight=torch.zeros_like(weight), ones=empty, scale=1.0)
    return Calls(
        (
            'deform_conv_forward',
            dict(weight=weight, output=torch.empty_like(x), ones=empty, **form),
        ),
        (
            ('deform_conv_backward_input', dict(weight=weight, **zeros, **grad)),
            ('deform_conv_backward_parameters', dict(**weights, **grad)),
        ),
    )


def _modulated_deform_conv(height: int, width: int, batch: int) -> Calls:
    x, weight = torch.randn(batch, 256, height, width), torch.randn(256, 256, 3, 3)
    offset, mask = torch.randn(batch, 18, height, width), torch.rand(batch, 9, height, width)
    bias, empty = torch.randn(256), torch.zeros(0)
    tensors = dict(input=x, weight=weight, bias=bias, offset=offset, mask=mask)
    form = dict(ones=empty, columns=empty, kernel_h=3, kernel_w=3, stride_h=1, stride_w=1)
    form |= dict(pad_h=1, pad_w=1, dilation_h=1, dilation_w=1, group=1, deformable_group=1)
    form |= dict(with_bias=True)
    grads = {f'grad_{name}': torch.zeros_like(t) for name, t in tensors.items()}
    grads['grad_output'] = torch.randn_like(x)
    return Calls(
        ('modulated_deform_conv_forward', dict(output=torch.empty_like(x), **tensors, **form)),
        (('modulated_deform_conv_backward', dict(**tensors, **grads, **form)),),
    )


def _psa_mask(height: int, width: int, batch: int) -> Calls:
    mask = 2 * height - 1, 2 * width - 1
    x = torch.randn(batch, mask[0] * mask[1], height, width)
    output = torch.zeros(batch, height * width, height, width)
    form = dict(psa_type=0, num_=batch, h_feature=height, w_feature=width, h_mask=mask[0])
    form |= dict(w_mask=mask[1], half_h_mask=height - 1, half_w_mask=width - 1)
    grads = dict(grad_output=torch.randn_like(output), grad_input=torch.zeros_like(x))
    return Calls(
        ('psamask_forward', dict(input=x, output=output, **form)),
        (('psamask_backward', dict(**grads, **form)),),
    )


OPERATORS: dict[str, Callable[..., Calls]] = {
    'nms': _nms,
    'softnms': _soft_nms,
    'nms_match': _nms_match,
    'bbox_overlaps': _overlaps,
    'roi_align': _roi_align(1, 256, 512),
    'roi_align_small': _roi_align(1, 64, 256),
    'roi_align_whole_map': _roi_align(1, 256, 512, whole=True),
    'roi_align_max': _roi_align(0, 64, 256),
    'deform_conv': _deform_conv,
    'modulated_deform_conv': _modulated_deform_conv,
    'psamask': _psa_mask,
}
"""Those that mmcv has compiled for the CPU. Boxes: their number and that of classes; maps: height
and width."""


def memory_of(case: Case) -> int:
    """Returns the bytes of the arguments of a case's forward pass that hold its result."""
    _, arguments = OPERATORS[case.model.removeprefix(PREFIX)](*case.size, batch=case.batch).forward
    return sum(t.nbytes for t in (arguments['input'], arguments['output']))
