"""What share of a detector's or segmentor's time its backbone and its neck take."""

import time
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

PARTS = ('backbone', 'neck')
"""Parts that are timed, in the order in which images go through them; the rest is heads, losses and
post-processing."""


class PartTimes:
    """Watches the parts of a model.

    A backward pass comes back through head, neck and backbone; a part's begins when the first
    gradient of its outputs is there and ends when that of the part before it is, or with the step.

    Args:
        model: Detector or segmentor on a CPU, whose calls are finished when they return.
    """

    def __init__(self, model: nn.Module):
        self.names = [name for name in PARTS if isinstance(getattr(model, name, None), nn.Module)]
        self.forward: dict[str, float] = {}
        self.arrived: dict[str, float] = {}
        for name in self.names:
            self._watch(name, getattr(model, name))

    def _watch(self, name: str, part: nn.Module) -> None:
        def begin(*_: Any) -> None:
            self.forward[name] = self.forward.get(name, 0) - time.perf_counter()

        def end(part: nn.Module, inputs: Any, outputs: Any) -> None:
            self.forward[name] += time.perf_counter()
            for output in tree_leaves(outputs):
                if isinstance(output, Tensor) and output.requires_grad:
                    output.register_hook(arrive)

        def arrive(gradient: Tensor) -> None:
            self.arrived.setdefault(name, time.perf_counter())

        part.register_forward_pre_hook(begin)
        part.register_forward_hook(end)

    def take(self) -> dict[str, float]:
        """Returns the seconds of each part in the step that has just ended, and forgets them."""
        found, end = {}, time.perf_counter()
        for name in self.names:  # the backbone first: its backward pass is the last
            found[name] = self.forward.get(name, 0.0)
            if name in self.arrived:
                found[name] += end - self.arrived[name]
                end = self.arrived[name]
        self.forward, self.arrived = {}, {}
        return found
