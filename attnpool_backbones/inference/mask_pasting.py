"""From a grid over a box to a mask of the image."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['paste_masks']


def paste_masks(grids: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Stretches grids over boxes, bilinearly, as mmdet's mask heads do on a CPU.

    Args:
        grids: N, m, m: probabilities.
        boxes: N, 4: left, top, right and bottom in pixels of the image.
        height: Of the image in pixels.
        width: Of the image in pixels.
        threshold: Probability from which on a pixel belongs to the object.

    Returns:
        N, height, width bool.
    """
    masks = torch.zeros(len(grids), height, width, dtype=torch.bool)
    for mask, grid, box in zip(masks, grids, boxes, strict=True):
        left, top = (box[:2].floor() - 1).clamp(min=0).int().tolist()
        right = min(int(box[2].ceil()) + 1, width)
        bottom = min(int(box[3].ceil()) + 1, height)
        if right <= left or bottom <= top:
            continue
        x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        # a box of no width puts all pixels at infinity
        x, y = (torch.where(v.isinf(), 0, v) for v in (x, y))
        places = torch.stack([x.expand(len(y), -1), y.unsqueeze(1).expand(-1, len(x))], -1)
        values = F.grid_sample(grid[None, None], places[None], align_corners=False)
        mask[top:bottom, left:right] = values[0, 0] >= threshold
    return masks
