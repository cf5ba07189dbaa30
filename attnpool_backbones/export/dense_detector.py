"""Detectors of one stage as graphs."""

from mmdet.models.dense_heads import AnchorHead
from torch import Tensor, nn

from attnpool_backbones.command_line import UserError
from attnpool_backbones.export.candidates import (
    pick,
    ranked_candidates,
    require_plain_nms,
    suppress,
)
from attnpool_backbones.export.images import ImageInput

__all__ = ['DenseDetectorGraph']


class DenseDetectorGraph(nn.Module):
    """An anchor-based detector such as RetinaNet, from pixels to objects.

    Args:
        model: mmdet's, in eval mode.

    Raises:
        UserError: If its head predicts in another way.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        head = model.bbox_head
        known = isinstance(head, AnchorHead) and all(
            getattr(type(head), name) is getattr(AnchorHead, name)
            for name in ('forward', 'predict', 'predict_by_feat', '_predict_by_feat_single')
        )
        if not known or getattr(head.loss_cls, 'custom_cls_channels', False):
            raise UserError(
                f'{type(head).__name__}: of detectors with one stage, those with anchors and no '
                'post-processing of their own can be exported, such as RetinaNet'
            )
        require_plain_nms(head.test_cfg, 'model.test_cfg')
        self.images = ImageInput(model.data_preprocessor)
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detects.

        Args:
            images: B, 3, H, W in blue, green, red, 0 to 255.

        Returns:
            Boxes B, P, 4 in pixels, scores B, P and labels B, P by falling score; after the
            objects of an image come rows with score and label -1.
        """
        head, cfg = self.model.bbox_head, self.model.bbox_head.test_cfg
        x = self.images(images)
        maps = head(self.model.extract_feat(x))
        boxes, scores, labels, _ = ranked_candidates(head, *maps, cfg, images.shape[-2:])
        kept = suppress(
            boxes, scores, labels, cfg.nms.iou_threshold, cfg.get('score_thr', 0), cfg.max_per_img
        )
        return pick(kept, boxes, scores, labels)
