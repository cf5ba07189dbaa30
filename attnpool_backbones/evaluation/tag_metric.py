"""How well a model tells which classes an image has."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from attnpool_backbones.dense_models.image_tags import TAGS, true_tags
from attnpool_backbones.registry import METRICS

__all__ = ['ImageTagMetric', 'average_precision', 'predicted_tags']


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Returns the sum over recalls of precision times the gain in recall, 0 to 1.

    Equal scores count as one step. NaN without positives.

    Args:
        scores: N.
        positive: N, booleans.
    """
    scores, order = scores.sort(descending=True)
    hits = positive[order].double().cumsum(0)
    last = torch.ones_like(scores, dtype=torch.bool)  # of its ties
    last[:-1] = scores[:-1] != scores[1:]
    ranks = torch.arange(1, len(scores) + 1, dtype=torch.double)
    precision, recall = (hits / ranks)[last], (hits / hits[-1])[last]
    return float((recall.diff(prepend=recall.new_zeros(1)) * precision).sum())


def predicted_tags(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the predicted tags of a data sample.

    Raises:
        KeyError: It has none.
    """
    if sample.get(TAGS) is None:
        raise KeyError(
            'the model predicts no tags of images: its type has to be '
            "'attnpool_backbones.WithImageHead' with base=TYPE"
        )
    return sample[TAGS]


@METRICS.register_module()
class ImageTagMetric(BaseMetric):
    """Mean over the classes of the average precision of "the image has the class", in percent.

    Gives ``tags/mAP``; classes that no image has do not count.

    Args:
        classwise: Whether to give ``tags/AP_CLASS`` of each class as well.
        ignore_index: Label of pixels without a class, for segmentation.
        exclude: Classes that do not count, e.g. the background of a segmentation.
        collect_device: Where results of several processes meet, ``'cpu'`` or ``'gpu'``.
        prefix: Of the names of the results. Default: ``'tags'``.
    """

    default_prefix = 'tags'

    def __init__(
        self,
        classwise: bool = False,
        ignore_index: int = 255,
        exclude: Sequence[int] = (),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classwise = classwise
        self.ignore_index = ignore_index
        self.exclude = tuple(exclude)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps scores and true tags of a batch."""
        for sample in data_samples:
            scores = predicted_tags(sample)['scores'].cpu()
            truth = true_tags(sample, len(scores), self.ignore_index).cpu()
            self.results.append((scores, truth))

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Returns the metrics of all images."""
        scores, truth = (torch.stack(values) for values in zip(*results, strict=True))
        names = (self.dataset_meta or {}).get('classes') or range(scores.shape[1])
        precisions = {}
        for k, name in enumerate(names):
            known = truth[:, k] >= 0
            positive = truth[known, k] == 1
            if k not in self.exclude and positive.any():
                precisions[name] = 100 * average_precision(scores[known, k], positive)
        mean = sum(precisions.values()) / len(precisions) if precisions else float('nan')
        classes = {f'AP_{name}': value for name, value in precisions.items()}
        return dict(mAP=mean, **(classes if self.classwise else {}))
