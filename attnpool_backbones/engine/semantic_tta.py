"""Test-time augmentation of segmentors that predict tags of images, too. Needs mmseg."""

from collections.abc import Sequence

from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample

from attnpool_backbones.dense_models.image_tags import TAGS, merge_tags

__all__ = ['SemanticTTAModel']


class SemanticTTAModel(SegTTAModel):
    """Merges label maps as ``SegTTAModel`` does, and averages the tags of an image-level head."""

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
        return merged
