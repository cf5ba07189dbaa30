"""What dense heads and RPNs propose: the best boxes of each level, for a batch at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnpool_backbones.command_line import UserError
from attnpool_backbones.export.operators import ABSENT, padded_nms

__all__ = ['class_apart', 'decode', 'pick', 'ranked_candidates', 'require_plain_nms', 'suppress']


def require_plain_nms(test_cfg: Mapping[str, Any], where: str) -> None:
    """Raises UserError unless a head removes boxes by plain NMS within classes."""
    nms = test_cfg['nms']
    if nms.get('type', 'nms') != 'nms' or nms.get('class_agnostic'):
        raise UserError(
            f'{where}.nms={dict(nms)}: only type=nms within each class can be exported; '
            f'--cfg-options {where}.nms.type=nms exports the model so'
        )


def ranked_candidates(
    head: nn.Module,
    class_maps: Sequence[Tensor],
    delta_maps: Sequence[Tensor],
    cfg: Mapping[str, Any],
    image_size: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ranks the boxes of all levels as ``predict_by_feat`` of mmdet's anchor heads does.

    Args:
        head: An anchor head.
        class_maps: B, A * K, h, w of each level.
        delta_maps: B, A * 4, h, w of each level.
        cfg: Its test settings: how many boxes of each level are taken, those of the highest
            scores, and how small they may be.
        image_size: Height and width that boxes are cut at.

    Returns:
        Boxes B, N, 4, scores, labels and levels B, N. Those that are too small have the score -1.
    """
    most = cfg.get('nms_pre', -1)
    sizes = [m.shape[-2:] for m in class_maps]
    priors_of = head.prior_generator.grid_priors(sizes, class_maps[0].dtype, class_maps[0].device)
    scores, labels, levels, priors, deltas = [], [], [], [], []
    for level, (class_map, delta_map, prior) in enumerate(
        zip(class_maps, delta_maps, priors_of, strict=True)
    ):
        batch = class_map.shape[0]
        logits = class_map.permute(0, 2, 3, 1).reshape(batch, -1, head.cls_out_channels)
        if head.use_sigmoid_cls:
            score = logits.sigmoid()
        else:
            score = logits.softmax(-1)[..., :-1]
        classes = score.shape[-1]
        score = score.flatten(1)  # B, h * w * A * K
        if most > 0:
            score, index = score.topk(torch.sym_min(most, score.shape[1]))
        else:
            score, index = score.sort(descending=True)
        box, label = index // classes, index % classes
        scores.append(score)
        labels.append(label)
        levels.append(torch.full_like(label, level))
        delta = delta_map.permute(0, 2, 3, 1).reshape(batch, -1, 4)
        deltas.append(delta.gather(1, box.unsqueeze(-1).expand(-1, -1, 4)))
        priors.append(prior[box])
    boxes = decode(head.bbox_coder, torch.cat(priors, 1), torch.cat(deltas, 1), image_size)
    ranked = torch.cat(scores, 1)
    if cfg.get('min_bbox_size', -1) >= 0:
        sides = boxes[..., 2:] - boxes[..., :2]
        ranked = ranked.masked_fill(~(sides > cfg['min_bbox_size']).all(-1), ABSENT)
    return boxes, ranked, torch.cat(labels, 1), torch.cat(levels, 1)


def decode(coder: Any, boxes: Tensor, deltas: Tensor, image_size: Sequence[int]) -> Tensor:
    """Moves boxes ..., 4 by deltas ..., 4 and cuts them at the image; see mmdet's coders."""
    decoded = coder.decode(boxes.reshape(-1, 4), deltas.reshape(-1, 4))
    if coder.clip_border:
        height, width = image_size
        x = decoded[:, 0::2].clamp(0, width)
        y = decoded[:, 1::2].clamp(0, height)
        decoded = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)
    return decoded.view(boxes.shape)


def class_apart(boxes: Tensor, groups: Tensor, there: Tensor) -> Tensor:
    """Moves boxes so that those of different groups cannot meet, as mmcv's ``batched_nms`` does.

    Args:
        boxes: B, N, 4.
        groups: B, N: classes, or levels.
        there: B, N: boxes that count for how far they move.
    """
    farthest = boxes.masked_fill(~there.unsqueeze(-1), 0).amax((1, 2))
    return boxes + (groups.to(boxes.dtype) * (farthest.unsqueeze(1) + 1)).unsqueeze(-1)


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, threshold: float, count: int
) -> Tensor:
    """Keeps the best boxes of each image; see :func:`padded_nms`.

    Args:
        boxes: B, N, 4.
        scores: B, N.
        groups: B, N; only boxes of one group suppress each other.
        iou: Above which the box of the lower score goes.
        threshold: Scores up to it do not count.
        count: Most boxes of an image.

    Returns:
        B, count: indices, then -1.
    """
    apart = class_apart(boxes, groups, scores > threshold)
    return padded_nms(apart, scores, iou, threshold, count)


def pick(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Takes kept boxes; what only fills the table has score and label -1 and no size.

    Args:
        kept: B, P: indices, then -1.
        boxes: B, N, 4.
        scores: B, N.
        labels: B, N.

    Returns:
        Boxes B, P, 4, scores B, P, labels B, P.
    """
    there = kept >= 0
    index = kept.clamp(min=0)
    boxes = boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
    return (
        boxes * there.unsqueeze(-1),
        scores.gather(1, index).masked_fill(~there, ABSENT),
        labels.gather(1, index).masked_fill(~there, -1),
    )
