"""A backbone with an image-level head and nothing else: it learns from image tags alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor

from attnpool_backbones.dense_models.image_head_mixins import DetectorWithImageHead
from attnpool_backbones.registry import MODELS

__all__ = ['ImageTagger']


class BackboneAlone(BaseModel):
    """What a detector is without neck and heads: it has features, no losses and no predictions."""

    with_neck = False

    def __init__(
        self,
        backbone: Mapping[str, Any],
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)

    def forward(
        self, inputs: Tensor, data_samples: Sequence | None = None, mode: str = 'tensor'
    ) -> Any:
        """Computes maps, losses or predictions, as ``mode`` says."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self._forward(inputs, data_samples)

    def _forward(self, inputs: Tensor, data_samples: Sequence | None = None) -> Sequence[Tensor]:
        return self.extract_feat(inputs)

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Tensor]:
        """Runs the backbone."""
        self.extract_feat(inputs)
        return {}

    def predict(self, inputs: Tensor, data_samples: Sequence, rescale: bool = True) -> Sequence:
        """Runs the backbone."""
        self.extract_feat(inputs)
        return data_samples


@MODELS.register_module()
class ImageTagger(DetectorWithImageHead, BackboneAlone):
    """Learns which classes images have, for weak localisation by its class maps.

    Takes the data of mmdet or mmseg; of its annotations only the tags are read. See
    :class:`ImageTagHead`; ``LocalisationMetric`` compares the maps with boxes and masks.

    Args:
        image_head: Arguments of the head; ``num_classes`` is needed.
        backbone: Config of the backbone.
        data_preprocessor: That of the data's library.
        init_cfg: Initialisation config of mmengine.

    Raises:
        ValueError: ``num_classes`` is missing, or nothing would be trained or rescored.
    """

    main_heads = ()

    def __init__(
        self,
        image_head: Mapping[str, Any],
        backbone: Mapping[str, Any],
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if 'num_classes' not in image_head:
            raise ValueError('ImageTagger has no other head: set image_head.num_classes')
        super().__init__(
            image_head=image_head,
            backbone=backbone,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if not self.image_head.loss_weight or self.image_head.gate:
            raise ValueError(
                'ImageTagger has nothing but its head: image_head.loss_weight has to be above 0, '
                'image_head.gate 0'
            )
