"""Activation checkpointing (arXiv 1604.06174) that changes nothing but memory and time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def _frozen_running_statistics(module: nn.Module) -> Iterator[None]:
    # The second forward pass of a checkpointed block would update the running statistics a
    # second time. Without tracking, a norm in training mode normalises by the batch just the same.
    norms = [
        m
        for m in module.modules()
        if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def checkpoint_block(block: nn.Module, *inputs):
    """Runs ``block(*inputs)``, keeping only its inputs; the backward pass computes the rest again.

    Outputs, gradients, random numbers and BatchNorm running statistics equal those of a plain call.

    Args:
        block: The module to run.
        *inputs: Its inputs.

    Returns:
        What ``block(*inputs)`` returns.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _frozen_running_statistics(block)

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
