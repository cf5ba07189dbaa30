"""Activation checkpointing (arXiv 1604.06174) that changes nothing but memory and time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from attnpool_backbones.ops.formula import formulas, formulas_wanted


@contextmanager
def _as_the_first_time(module: nn.Module, by_formulas: bool) -> Iterator[None]:
    # The second forward pass of a checkpointed block must not update the running statistics a
    # second time, but has to save the same tensors as the first: a momentum of 0 does both. What
    # is counted goes to a copy of the counter, without which a SyncBatchNorm does not run.
    # Not every norm with running statistics is a _BatchNorm: InstanceNorm, mmcv's MMSyncBN.
    norms = [
        m
        for m in module.modules()
        if m.training and getattr(m, 'num_batches_tracked', None) is not None
    ]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, num_batches) in zip(norms, before, strict=True):
        norm.momentum, norm.num_batches_tracked = 0.0, num_batches.clone()
    try:
        with formulas(by_formulas):
            yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches


def checkpoint_block(block: nn.Module, *inputs: Any) -> Any:
    """Runs ``block(*inputs)``, keeping only its inputs; the backward pass computes the rest again.

    Outputs, gradients, random numbers and running statistics of norms equal those of a plain call.

    Args:
        block: The module to run.
        *inputs: Its inputs.

    Returns:
        What ``block(*inputs)`` returns.
    """
    if torch.compiler.is_compiling():
        # the compiler computes again without side effects, and takes no contexts made in here
        return checkpoint(block, *inputs, use_reentrant=False)
    by_formulas = formulas_wanted()

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _as_the_first_time(block, by_formulas)

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
