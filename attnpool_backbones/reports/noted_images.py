"""What was found in each image of a test; the worst ones are kept whole, to be shown."""

import heapq
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from mmengine.evaluator import BaseMetric

from attnpool_backbones.reports.contents import PAIRS

__all__ = ['NotedImages']


class NotedImages(BaseMetric):
    """Base of metrics that note each image, a dataclass, and give no metric.

    Attributes:
        images: All images, in the first process after the evaluation.
    """

    pictures: ClassVar[tuple[str, ...]]
    """Fields of an image that the worst ones alone keep."""

    def __init__(self) -> None:
        super().__init__(collect_device='cpu')
        self.images: list[Any] = []
        self._worst: list[tuple[float, int]] = []  # of self.results, a heap: the best is its first

    def note(self, image: Any, badness: float | None) -> None:
        """Adds an image.

        Args:
            image: With its pictures, if it may be shown.
            badness: The worst ones have most; None for one that is not shown.
        """
        if not self.results:
            self._worst = []
        if badness is not None:
            # of equal ones the first stay, as where they are chosen
            heapq.heappush(self._worst, (badness, -len(self.results)))
        self.results.append(image)
        if len(self._worst) > PAIRS:
            best = -heapq.heappop(self._worst)[1]
            self.results[best] = replace(self.results[best], **dict.fromkeys(self.pictures))

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """Keeps what was noted.

        Args:
            results: Of all processes.
        """
        self.images = list(results)
        return {}
