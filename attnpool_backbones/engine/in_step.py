"""Processes that share the parts of a model need each other in every step of a validation."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from attnpool_backbones.engine.agreement import Agreement

__all__ = ['InStep', 'is_sharded']

ENDED = object()


def is_sharded(model: Any) -> bool:
    """Tells whether a forward pass of a model gathers its parameters from all processes."""
    return isinstance(model, FullyShardedDataParallel)


class InStep:
    """Makes all processes run a model equally often, whatever batches they have.

    A process that has no batch while another one has takes part with an image of its own, and
    nobody looks at what is predicted for it.

    Args:
        model: With ``val_step``.
        spare: Returns a batch of one image that can be used.
        agreement: Of the processes.
    """

    def __init__(self, model: nn.Module, spare: Callable[[], Any], agreement: Agreement) -> None:
        self.model = model
        self.spare = spare
        self.agreement = agreement

    def whole(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches that have a sample.

        Args:
            batches: Of this process; None where nothing is left of one.
        """
        rest = iter(batches)
        while True:
            batch = next(rest, ENDED)
            is_whole = batch is not None and batch is not ENDED
            there, running = self.agreement.highest(int(is_whole), int(batch is not ENDED))
            if not running:
                return
            if is_whole:
                yield batch
            elif there:
                with torch.no_grad():
                    self.model.val_step(self.spare())
