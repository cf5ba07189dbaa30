"""From a model to a graph: pixels in, predictions out."""

from dataclasses import dataclass

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from attnpool_backbones import ops
from attnpool_backbones.command_line import UserError, line_of
from attnpool_backbones.config_tasks import recognise_dense_task
from attnpool_backbones.layers.grid_attention import GridAttention

__all__ = ['Sizes', 'build_graph', 'fixed_because', 'trace']

SMALLEST = 32
"""Pixels of the smallest side that a graph for any size takes."""
RECORDED = (320, 384)
"""Height and width that such a graph is recorded with: maps at a stride of 128 have several rows
and columns then. One row would be recorded as a row that is spread over all others."""


@dataclass(frozen=True)
class Sizes:
    """What images a graph takes.

    Args:
        height: Of all images if ``fixed``, else of those that the graph is compared on.
        width: Likewise.
        batch: Images that it is recorded with, and at once if ``fixed``.
        fixed: Whether it takes no other size.
    """

    height: int
    width: int
    batch: int = 2
    fixed: bool = False


def build_graph(model: nn.Module, cfg: Config) -> nn.Module:
    """Restates a model's prediction as one module from tensors to tensors.

    Args:
        model: In eval mode on the CPU; its heads are called, nothing of it is changed.
        cfg: Its config.

    Returns:
        The module; ``outputs`` names what it returns.

    Raises:
        UserError: If the model predicts in a way that is not restated here.
    """
    if recognise_dense_task(cfg, 'attnpool export') == 'mmseg':
        from attnpool_backbones.export.segmentor import SegmentorGraph

        return SegmentorGraph(model).eval()
    if hasattr(model, 'roi_head'):
        from attnpool_backbones.export.two_stage import TwoStageGraph

        return TwoStageGraph(model).eval()
    if hasattr(model, 'bbox_head'):
        from attnpool_backbones.export.dense_detector import DenseDetectorGraph

        return DenseDetectorGraph(model).eval()
    raise UserError(
        f'{type(model).__name__} cannot be exported: it has neither a RoI nor a box head'
    )


def fixed_because(model: nn.Module) -> str | None:
    """Tells why a graph of a model can have one size of images only; None if it takes any."""
    for module in model.modules():
        if isinstance(module, GridAttention) and module.bias is not None:
            return 'attention with a table of relative positions is written for one size of images'
        if isinstance(module, GridAttention) and module.window is not None:
            return 'attention in windows is cut to one size of images'
        if type(module).__name__ in ('ShiftWindowMSA', 'WindowMSA'):
            return 'Swin cuts its windows to one size of images'
    return None


def trace(graph: nn.Module, sizes: Sizes) -> torch.export.ExportedProgram:
    """Records a graph.

    Args:
        graph: Of :func:`build_graph`.
        sizes: Of the images.

    Returns:
        The program, with the recorded forms of all operators but those that ONNX has itself.

    Raises:
        UserError: If it cannot be recorded.
    """
    height, width = (sizes.height, sizes.width) if sizes.fixed else RECORDED
    images = example(sizes.batch, height, width)
    free = torch.export.Dim.DYNAMIC
    dynamic = None if sizes.fixed else ({0: free, 2: free, 3: free},)
    try:
        with ops.recorded_forms(), torch.no_grad():
            return torch.export.export(graph, (images,), dynamic_shapes=dynamic, strict=False)
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        raise UserError(
            f'the model cannot be recorded for {"one size" if sizes.fixed else "any size"} of '
            f'images: {line_of(error)}'
        ) from error


def example(batch: int, height: int, width: int) -> Tensor:
    """Makes images B, 3, H, W of smooth noise, 0 to 255; always the same ones."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((batch, 3, max(2, height // 16), max(2, width // 16))))
    return nn.functional.interpolate(coarse.float() * 255, (height, width), mode='bilinear')
