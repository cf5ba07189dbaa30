"""A backbone and a head that classifies images, as mmengine's Runner trains models."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.heads.batch_mixing import BatchMixing
from attnpool_backbones.registry import MODELS


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Classifies images by the last map of a backbone.

    Args:
        backbone: Config of the backbone.
        head: Config of the head: ``AveragePoolingHead``, ``AttentionPoolingHead`` or another that
            takes a backbone's maps and returns something with ``logits``. Without ``in_channels``
            it gets the backbone's last ``out_channels``.
        label_smoothing: Of the cross entropy, 0 to 1. Default: 0.
        mixing: Arguments of :class:`BatchMixing` (mixup and CutMix) in training. Default: none.
        data_preprocessor: Config of mmengine's ``ImgDataPreprocessor``.
        init_cfg: Initialisation config of mmengine.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        label_smoothing: float = 0.0,
        mixing: Mapping[str, float] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        head = dict(head)
        if 'in_channels' not in head:
            head['in_channels'] = self.backbone.out_channels[-1]
        self.head = MODELS.build(head)
        self.label_smoothing = label_smoothing
        self.mixing = None if mixing is None else BatchMixing(**mixing)

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        mode: str = 'tensor',
        data_samples: Sequence[str] | None = None,
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """Computes logits, a loss or predictions.

        Args:
            inputs: Images B, 3, H, W, normalised.
            labels: Of the images, B; needed for ``'loss'``.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.
            data_samples: Paths of the images, if the data tell them.

        Returns:
            Logits B, K; or ``loss`` and ``accuracy`` (percent of the batch); or for each image its
            ``scores`` K, from 0 to 1, its ``label`` if there are labels, and ``img_path``.

        Raises:
            ValueError: An unknown mode.
        """
        targets = labels
        if mode == 'loss' and self.mixing is not None:
            inputs, targets = self.mixing(inputs, labels, self.head.num_classes)
        logits = self.head(self.backbone(inputs)).logits  # B, K
        if mode == 'tensor':
            return logits
        if mode == 'loss':
            # of mixed images that of the class with the larger share
            right = targets if targets is labels else targets.argmax(1)
            hits = (logits.detach().argmax(1) == right).float()
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
            return dict(loss=loss, accuracy=100 * hits.mean())
        if mode != 'predict':
            raise ValueError(f"mode='{mode}' must be one of tensor, loss, predict")
        results = [dict(scores=scores) for scores in logits.float().softmax(1)]
        for index, label in enumerate(() if labels is None else labels):
            results[index]['label'] = label
        for result, path in zip(results, data_samples or (), strict=False):
            result['img_path'] = path
        return results
