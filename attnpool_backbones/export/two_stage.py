"""Detectors of two and more stages as graphs: Faster, Mask and Cascade R-CNN."""

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn

from attnpool_backbones.command_line import UserError
from attnpool_backbones.export.candidates import (
    decode,
    pick,
    ranked_candidates,
    require_plain_nms,
    suppress,
)
from attnpool_backbones.export.images import ImageInput
from attnpool_backbones.export.operators import ABSENT
from attnpool_backbones.ops import roi_align

__all__ = ['TwoStageGraph']


class TwoStageGraph(nn.Module):
    """A detector with an RPN and a standard or cascaded RoI head, from pixels to objects.

    Heads run on the proposals and objects that are there, however many; their results are rows of
    tables of fixed size, so that the images of a batch stay apart.

    Args:
        model: mmdet's, in eval mode.

    Raises:
        UserError: If its heads predict in another way.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        roi_head = model.roi_head
        _require_known_heads(model)
        require_plain_nms(model.rpn_head.test_cfg, 'model.test_cfg.rpn')
        require_plain_nms(roi_head.test_cfg, 'model.test_cfg.rcnn')
        self.images = ImageInput(model.data_preprocessor)
        self.model = model
        self.box_heads = _stages(roi_head.bbox_head)
        self.box_extractors = _stages(roi_head.bbox_roi_extractor)
        self.mask_heads, self.mask_extractors = [], []
        self.outputs = ('boxes', 'scores', 'labels')
        if roi_head.with_mask:
            self.mask_heads = _stages(roi_head.mask_head)
            self.mask_extractors = self.box_extractors
            if not roi_head.share_roi_extractor:
                self.mask_extractors = _stages(roi_head.mask_roi_extractor)
            self.outputs += ('masks',)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detects.

        Args:
            images: B, 3, H, W in blue, green, red, 0 to 255.

        Returns:
            Boxes B, P, 4 in pixels, scores B, P and labels B, P by falling score; after the
            objects of an image come rows with score and label -1. With a mask head also masks
            B, P, m, m: the probability of each cell of a grid over the box.
        """
        size = images.shape[-2:]
        maps = self.model.extract_feat(self.images(images))
        boxes, there = self._propose(maps, size)
        boxes, scores = self._refine(maps, boxes, there, size)
        batch, _, classes = scores.shape
        labels = torch.arange(classes, device=scores.device).expand_as(scores).flatten(1)
        boxes = boxes.expand(-1, -1, classes, -1).flatten(1, 2)
        cfg = self.model.roi_head.test_cfg
        scores = scores.flatten(1)
        kept = suppress(
            boxes, scores, labels, cfg.nms.iou_threshold, cfg.score_thr, cfg.max_per_img
        )
        found = pick(kept, boxes, scores, labels)
        if not self.mask_heads:
            return found
        return *found, self._masks(maps, found[0], found[2])

    def _propose(self, maps: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns boxes B, P, 4 and whether there is one, B, P."""
        head = self.model.rpn_head
        cfg = head.test_cfg
        boxes, scores, labels, levels = ranked_candidates(head, *head(maps), cfg, size)
        kept = suppress(boxes, scores, levels, cfg.nms.iou_threshold, ABSENT / 2, cfg.max_per_img)
        return pick(kept, boxes, scores, labels)[0], kept >= 0

    def _refine(
        self, maps: Sequence[Tensor], boxes: Tensor, there: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Runs the box heads, one after the other.

        Args:
            maps: Of the neck.
            boxes: B, P, 4.
            there: B, P.
            size: Height and width of the images.

        Returns:
            Boxes B, P, K, 4, with K 1 if classes share a box, and scores B, P, K.
        """
        (batch, rows), logits = there.shape, 0
        index = _some(there.flatten())
        boxes = boxes.flatten(0, 1)
        for stage, (head, extractor) in enumerate(
            zip(self.box_heads, self.box_extractors, strict=True)
        ):
            if stage:
                boxes = boxes.squeeze(1)
            pooled = _pool(extractor, maps, _rois(boxes, rows)[index])
            class_logits, deltas = (_spread(part, index, batch * rows) for part in head(pooled))
            logits = logits + class_logits
            deltas = deltas.unflatten(1, (-1, 4))  # B * P, K, 4
            if stage + 1 < len(self.box_heads) and not head.reg_class_agnostic:
                label = class_logits[:, :-1].argmax(1)
                deltas = deltas.gather(1, label.view(-1, 1, 1).expand(-1, -1, 4))
            boxes = decode(
                head.bbox_coder, boxes.unsqueeze(1).expand(-1, deltas.shape[1], -1), deltas, size
            )
        scores = (logits / len(self.box_heads)).softmax(-1)[:, :-1]
        scores = scores.masked_fill(~there.flatten().unsqueeze(1), ABSENT)
        return boxes.unflatten(0, (batch, rows)), scores.unflatten(0, (batch, rows))

    def _masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Returns the masks B, P, m, m of boxes B, P, 4; the mean of all mask heads."""
        batch, rows = labels.shape
        labels = labels.flatten()
        index = _some(labels >= 0)
        labels = labels.clamp(min=0)
        rois = _rois(boxes.flatten(0, 1), rows)[index]
        total = 0
        for head, extractor in zip(self.mask_heads, self.mask_extractors, strict=True):
            masks = head(_pool(extractor, maps, rois)).sigmoid()
            if not head.class_agnostic:
                label = labels[index].view(-1, 1, 1, 1)
                masks = masks.gather(1, label.expand(-1, 1, *masks.shape[-2:]))
            total = total + masks.squeeze(1)
        masks = _spread(total / len(self.mask_heads), index, batch * rows)
        return masks.unflatten(0, (batch, rows))


def _stages(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def _require_known_heads(model: nn.Module) -> None:
    """Raises UserError if a head or an extractor is not one whose prediction is restated here."""
    roi_head = model.roi_head
    known = [(model.rpn_head, RPNHead), (roi_head, (StandardRoIHead, CascadeRoIHead))]
    known += [(head, BBoxHead) for head in _stages(roi_head.bbox_head)]
    extractors = _stages(roi_head.bbox_roi_extractor)
    if roi_head.with_mask:
        known += [(head, FCNMaskHead) for head in _stages(roi_head.mask_head)]
        extractors += _stages(roi_head.mask_roi_extractor)
    known += [(extractor, SingleRoIExtractor) for extractor in extractors]
    for module, kinds in known:
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        methods = ('predict_by_feat', '_predict_by_feat_single', 'predict_bbox', 'predict_mask',
                   'map_roi_levels', '_refine_roi')  # fmt: skip
        own = isinstance(module, kinds) and all(
            any(getattr(type(module), name, None) is getattr(kind, name, None) for kind in kinds)
            for name in methods
        )
        if not own:
            raise UserError(
                f'{type(module).__name__} cannot be exported; in its place can be '
                f'{" or ".join(kind.__name__ for kind in kinds)}'
            )
    if roi_head.with_shared_head or any(h.custom_activation for h in _stages(roi_head.bbox_head)):
        raise UserError(
            'a RoI head with a shared head, or with a loss that activates by itself, cannot be '
            'exported'
        )
    for layer in (layer for extractor in extractors for layer in extractor.roi_layers):
        if type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg':
            raise UserError(f'roi_layer={layer}: only RoIAlign with pool_mode=avg can be exported')


def _rois(boxes: Tensor, rows: int) -> Tensor:
    """Puts the index of its image before each box, B * rows, 4; returns B * rows, 5."""
    image = torch.arange(boxes.shape[0], device=boxes.device) // rows
    return torch.cat([image.to(boxes.dtype).unsqueeze(1), boxes], 1)


def _pool(extractor: SingleRoIExtractor, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Pools each RoI from the level of its size, as the extractor does."""
    levels = extractor.map_roi_levels(rois, extractor.num_inputs)
    size = extractor.roi_layers[0].output_size
    pooled = maps[0].new_zeros(rois.shape[0], extractor.out_channels, *size)
    for level, (layer, x) in enumerate(zip(extractor.roi_layers, maps, strict=False)):
        settings = (list(size), layer.spatial_scale, layer.sampling_ratio, layer.aligned)
        if extractor.num_inputs == 1:
            return roi_align.mean(x, rois, *settings)
        index = (levels == level).nonzero().squeeze(1)
        part = roi_align.mean(x, rois[index], *settings)
        pooled = pooled.index_put((index,), part)
    return pooled


def _some(there: Tensor) -> Tensor:
    """Returns the indices where ``there`` holds, after the first: norms want at least one row."""
    return torch.cat([torch.zeros_like(there[:1], dtype=torch.int64), there.nonzero().squeeze(1)])


def _spread(values: Tensor, index: Tensor, rows: int) -> Tensor:
    """Writes M, ... into rows of a table of zeros: rows, ...."""
    return values.new_zeros(rows, *values.shape[1:]).index_put((index,), values)
