"""How often a classifier is right."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from attnpool_backbones.registry import METRICS


@METRICS.register_module()
class TopAccuracy(BaseMetric):
    """Share of the images whose label is among the classes of the highest scores.

    Equal scores and NaN are no hit: of those classes the label's counts as the last.

    Args:
        topk: How many classes count, each number a metric ``top1``, ``top5`` ...; those of more
            classes than there are, are left out. Default: 1 and 5.
        **kwargs: Of mmengine's ``BaseMetric``.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs: Any):
        super().__init__(**kwargs)
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Notes the rank of each image's label among the classes, 0 the best.

        Args:
            data_batch: Not used.
            data_samples: Of :class:`ImageClassifier`: ``scores`` K and ``label``.
        """
        for sample in data_samples:
            scores, label = sample['scores'].cpu(), int(sample['label'])
            self.results.append((int((~(scores < scores[label])).sum()) - 1, len(scores)))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        """Returns the accuracies in percent."""
        ranks = torch.tensor([rank for rank, _ in results])
        classes = max(count for _, count in results)
        return {
            f'top{k}': 100 * float((ranks < k).float().mean()) for k in self.topk if k < classes
        }
