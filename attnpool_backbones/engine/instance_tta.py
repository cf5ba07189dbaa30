"""Test-time augmentation of instance segmentation, which mmdet leaves out. Needs mmdet."""

import torch
from mmcv.ops import batched_nms
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from attnpool_backbones.dense_models.image_tags import TAGS, merge_tags

__all__ = ['InstanceTTAModel']

# axes of a N, H, W stack of masks that a flip reverses
FLIPPED_AXES = {'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2)}


class InstanceTTAModel(DetTTAModel):
    """Merges boxes as ``DetTTAModel`` does, and lets every box that is kept keep its mask.

    Takes the arguments of :class:`mmdet.models.DetTTAModel`. The views of an image may differ in
    scale and flip. Detectors without masks are merged by ``DetTTAModel`` itself. The tags of an
    image-level head are averaged. Annotations are those of the first view that is not flipped.
    """

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        # the first one becomes the merged one; a flip may have flipped its annotations
        data_samples = sorted(data_samples, key=lambda sample: bool(sample.flip))
        tags = [sample.get(TAGS) for sample in data_samples]
        merged = self._merge_instances(data_samples)
        if None not in tags:
            merged.set_field(merge_tags(tags), TAGS)
        return merged

    def _merge_instances(self, data_samples: list[DetDataSample]) -> DetDataSample:
        views = [sample.pred_instances for sample in data_samples]
        merged = data_samples[0]
        if 'masks' not in views[0]:
            return super()._merge_single_sample(data_samples)
        boxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views],
            [view.scores for view in views],
            [sample.metainfo for sample in data_samples],
        )
        if not len(boxes):
            return merged
        labels = torch.cat([view.labels for view in views])
        masks = torch.cat(
            [
                view.masks.flip(FLIPPED_AXES[sample.flip_direction]) if sample.flip else view.masks
                for view, sample in zip(views, data_samples, strict=True)
            ]
        )
        scored_boxes, kept = batched_nms(boxes, scores, labels, self.tta_cfg.nms)
        kept = kept[: self.tta_cfg.max_per_img]
        scored_boxes = scored_boxes[: len(kept)]
        merged.pred_instances = InstanceData(
            bboxes=scored_boxes[:, :4],
            scores=scored_boxes[:, 4],
            labels=labels[kept],
            masks=masks[kept],
        )
        return merged
