"""Segmentors as graphs."""

import copy

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import Upsample, resize
from torch import Tensor, nn

from attnpool_backbones.command_line import UserError
from attnpool_backbones.export.images import ImageInput

__all__ = ['SegmentorGraph']


class SegmentorGraph(nn.Module):
    """mmseg's EncoderDecoder in ``whole`` mode, from pixels to labels.

    Args:
        model: In eval mode.

    Raises:
        UserError: If it predicts in another way.
    """

    outputs = ('labels', 'logits')

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        mode = model.test_cfg.get('mode', 'whole')
        if mode != 'whole':
            raise UserError(
                f"model.test_cfg.mode='{mode}': only 'whole' can be exported; --cfg-options "
                'model.test_cfg.mode=whole exports the model so, and attnpool predict --slice cuts '
                'large images'
            )
        if not hasattr(model, 'decode_head') or isinstance(model.decode_head, nn.ModuleList):
            raise UserError(f'{type(model).__name__} with several decode heads cannot be exported')
        head = model.decode_head
        known = all(
            getattr(type(head), name) is getattr(BaseDecodeHead, name)
            for name in ('predict', 'predict_by_feat')
        )
        if not known or head.align_corners:
            raise UserError(
                f'{type(head).__name__}: only decode heads whose logits are resized with '
                'align_corners=False can be exported, such as UPerHead and FPNHead'
            )
        self.images = ImageInput(model.data_preprocessor)
        self.model = model
        self.head = _for_any_size(model.decode_head)
        self.threshold = getattr(head, 'threshold', None)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Labels all pixels.

        Args:
            images: B, 3, H, W in blue, green, red, 0 to 255.

        Returns:
            Labels B, H, W int64, and logits B, K, H, W; K is 1 where two classes share a logit.
        """
        height, width = images.shape[-2:]
        x = self.images(images)
        logits = self.head(self.model.extract_feat(x))
        logits = resize(logits, x.shape[-2:], mode='bilinear', align_corners=False)
        logits = logits[..., :height, :width]
        if logits.shape[1] > 1:
            return logits.argmax(1), logits
        return (logits[:, 0].sigmoid() > self.threshold).long(), logits


class _Enlarged(nn.Module):
    """mmseg's ``Upsample`` by a whole factor, without sizes that are numbers of the example only.

    Args:
        upsample: Whose place it takes.
    """

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        self.factor, self.mode = int(upsample.scale_factor), upsample.mode
        self.align_corners = upsample.align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = [side * self.factor for side in x.shape[-2:]]
        return resize(x, size, mode=self.mode, align_corners=self.align_corners)


def _for_any_size(head: nn.Module) -> nn.Module:
    """Copies a head, with :class:`_Enlarged` in it; the head itself stays as it is."""
    head = copy.deepcopy(head)
    for module in list(head.modules()):
        for name, child in module.named_children():
            factor = getattr(child, 'scale_factor', None)
            if isinstance(child, Upsample) and isinstance(factor, float) and factor.is_integer():
                setattr(module, name, _Enlarged(child))
    return head
