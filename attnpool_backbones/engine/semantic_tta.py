"""Test-time augmentation of segmentors that predict tags of images, too. Needs mmseg."""

from collections.abc import Sequence

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample

from attnpool_backbones.dense_models.image_tags import TAGS, merge_tags

__all__ = ['SemanticTTAModel']


class SemanticTTAModel(SegTTAModel):
    """Merges label maps as ``SegTTAModel`` does, and averages the tags of an image-level head.

    Of two classes in one channel it averages the probabilities.
    """

    def merge_preds(
        self, data_samples_list: Sequence[Sequence[SegDataSample]]
    ) -> list[SegDataSample]:
        """Merges the views of each image.

        Args:
            data_samples_list: The predictions of each view of each image.

        Returns:
            One prediction an image.
        """
        tags = [[view.get(TAGS) for view in views] for views in data_samples_list]
        merged = super().merge_preds(data_samples_list)
        for sample, own in zip(merged, tags, strict=True):
            if None not in own:
                sample.set_field(merge_tags(own), TAGS)
        if self.module.out_channels == 1:
            # seg_logits are probabilities there already, of which SegTTAModel takes sigmoid again
            for sample, views in zip(merged, data_samples_list, strict=True):
                mean = torch.stack([view.seg_logits.data for view in views]).mean(0)  # 1, H, W
                found = (mean > self.module.decode_head.threshold).to(mean)
                sample.set_data(dict(pred_sem_seg=PixelData(data=found)))
        return merged
