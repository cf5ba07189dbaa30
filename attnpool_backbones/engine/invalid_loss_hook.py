"""Stops training when a loss or a gradient is no longer a number, before it reaches the weights."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.non_finite_search import image_names, loss_terms, search
from attnpool_backbones.engine.optimizers import is_between_updates, wrappers_of
from attnpool_backbones.engine.random_state_hook import MODEL, seed_generators
from attnpool_backbones.registry import HOOKS

__all__ = ['InvalidLossError', 'InvalidLossHook']

CAUSES = (
    'Usual causes: learning rate too high, no gradient clipping, half precision, or broken '
    'annotations.'
)

LEFT_OUT = 'left_out_updates'
"""Where a checkpoint tells how many updates of the run were left out."""

MAX_AMP_SKIPS = 50
"""Updates in a row that mixed precision may leave out; by then the loss scale is nothing."""


class InvalidLossError(UserError):
    """A training loss or a gradient became infinite or NaN."""


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Raises as soon as a gradient or a training loss is infinite or NaN.

    Gradients are looked at before the optimizer uses them: the weights stay as they were after the
    last good iteration. Their norm tells it, which costs nothing if the gradients are clipped by
    norm. A second pass over the batch then finds the first module whose output or gradient is not
    finite. Updates that mixed precision leaves out by itself, while it looks for a loss scale, are
    no fault; 50 in a row are.

    Args:
        interval: Check the loss every that many iterations. On a GPU every check waits for
            the device. Gradients are always checked. Default: 1.
        max_skips: How many updates of a run, from its start on, may be left out because of such a
            gradient, with a warning, before the training stops. Running statistics of the iteration
            are taken back, too. Default: 0.
    """

    # before the logger writes the broken values and before a checkpoint is saved
    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 1, max_skips: int = 0) -> None:
        if interval < 1:
            raise ValueError(f'interval has to be at least 1, but is {interval}')
        if max_skips < 0:
            raise ValueError(f'max_skips has to be at least 0, but is {max_skips}')
        self.interval = interval
        self.max_skips = max_skips
        self.skipped = 0

    def before_train(self, runner: Runner) -> None:
        """Puts the check between every optimizer and its gradients.

        Args:
            runner: The starting training.
        """
        self._batches: list[tuple[int, Any]] = []  # since the last update
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._skipped_iter = self._stepped_iter = -1
        self._amp_skips = 0
        skipped = runner.message_hub.runtime_info.get(LEFT_OUT)
        self.skipped = skipped if type(skipped) is int else 0
        self._handles = [
            wrapper.optimizer.register_step_pre_hook(
                lambda optimizer, args, kwargs, wrapper=wrapper: self._check(
                    runner, wrapper, optimizer
                )
            )
            for wrapper in wrappers_of(runner.optim_wrapper).values()
        ]

    def after_train(self, runner: Runner) -> None:
        """Takes the check away.

        Args:
            runner: The ended training.
        """
        for handle in self._handles:
            handle.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps what is needed to look for a cause.

        Args:
            runner: The running training.
            batch_idx: Index of the batch in its epoch.
            data_batch: The batch.
        """
        if self.max_skips and not self._batches:
            self._keep_buffers(runner)
        self._batches.append((runner.iter, data_batch))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Checks the losses of one iteration.

        Args:
            runner: The running training.
            batch_idx: Index of the batch in its epoch.
            data_batch: The batch.
            outputs: The losses by name, and their sum as ``loss``.

        Raises:
            InvalidLossError: Naming the iteration and every loss.
        """
        self._count_amp_skips(runner)
        if self._skipped_iter == runner.iter or outputs is None:
            return
        if self.max_skips and self._batches:
            return  # its gradient is still being accumulated, and perhaps left out
        if not self.every_n_train_iters(runner, self.interval):
            return
        losses = [torch.as_tensor(value) for name, value in outputs.items() if 'loss' in name]
        if all(map(is_finite, losses)):
            return
        raise InvalidLossError(
            f'the loss is not finite at {self._where(runner)}: '
            f'{listed(loss_terms(outputs))}.{of_images([data_batch])} {CAUSES}'
        )

    def _keep_buffers(self, runner: Runner) -> None:
        values = [b for b in runner.model.buffers() if b.is_floating_point()]
        if [id(b) for b in values] != [id(b) for b, _ in self._buffers]:
            self._buffers = [(b, b.detach().clone()) for b in values]
            return
        with torch.no_grad():
            for buffer, kept in self._buffers:
                kept.copy_(buffer)

    def _count_amp_skips(self, runner: Runner) -> None:
        if not is_between_updates(runner.optim_wrapper):
            return
        batches, self._batches = self._batches, []
        wrappers = wrappers_of(runner.optim_wrapper).values()
        if not any(hasattr(wrapper, 'loss_scaler') for wrapper in wrappers):
            return
        self._amp_skips = 0 if self._stepped_iter == runner.iter else self._amp_skips + 1
        if self._amp_skips >= MAX_AMP_SKIPS:
            self._batches = batches
            raise InvalidLossError(
                f'mixed precision has left out the last {self._amp_skips} updates, because no loss '
                f'scale gives finite gradients, at {self._diagnosis(runner)}'
            )

    def _check(self, runner: Runner, wrapper: OptimWrapper, optimizer: Optimizer) -> None:
        """Looks at the gradients before an optimizer does."""
        # a fused optimizer is called by mixed precision, too, when it leaves an update out
        if getattr(optimizer, 'found_inf', None):
            return
        self._stepped_iter = runner.iter
        finite = gradients_are_finite(wrapper, optimizer)
        if is_distributed() and not shares_gradients(runner.model):
            flag = torch.tensor(float(finite), device=next(runner.model.parameters()).device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
            finite = bool(flag)
        if finite:
            return
        diagnosis = self._diagnosis(runner)
        if self.skipped >= self.max_skips:
            after = f' after {self.skipped} updates that were left out' if self.skipped else ''
            raise InvalidLossError(f'a gradient is not finite{after} at {diagnosis}')
        self.skipped += 1
        runner.message_hub.update_info(LEFT_OUT, self.skipped)
        self._skipped_iter = runner.iter
        # an optimizer passes over parameters without gradients: no decay, no step counted
        for group in optimizer.param_groups:
            for parameter in group['params']:
                parameter.grad = None
        with torch.no_grad():
            for buffer, kept in self._buffers:
                buffer.copy_(kept)
        print_log(
            f'Left out update {self.skipped} of at most {self.max_skips}: a gradient is not finite '
            f'at {diagnosis}',
            logger='current',
            level=logging.WARNING,
        )

    def _diagnosis(self, runner: Runner) -> str:
        """Says where and why, after a second pass over the batches since the last update."""
        batches = self._batches or [(runner.iter, None)]
        losses: dict[str, float] = {}
        place = ''
        for number, batch in batches:
            if batch is None:
                continue
            seed_generators(MODEL, runner.seed, runner.rank, number)
            try:
                losses, place = search(runner.model, batch, runner.optim_wrapper)
            except Exception as error:
                # the first pass went well, and its message must not be lost
                losses, place = {}, f'not found, the second pass failed: {error}'
            if place:
                break
        place = place or 'nothing in a second pass over the same batch'
        lines = [f'{self._where(runner)}: {listed(losses)}. First not finite: {place}.']
        lines = gathered(lines[0] + of_images([batch for _, batch in batches]))
        return ' '.join([*lines, CAUSES])

    @staticmethod
    def _where(runner: Runner) -> str:
        return f'iteration {runner.iter + 1} (epoch {runner.epoch + 1})'


def gradients_are_finite(wrapper: OptimWrapper, optimizer: Optimizer) -> bool:
    """Tells whether an optimizer may use its gradients.

    Args:
        wrapper: Has just clipped them, or does not clip.
        optimizer: Of the wrapper.
    """
    norms = wrapper.message_hub.log_scalars
    if (
        wrapper.clip_grad_kwargs
        and getattr(wrapper, 'grad_name', '') == 'grad_norm'
        and 'train/grad_norm' in norms
        # of all of them, on its way to the log; to gather hundreds of them takes longer
        and math.isfinite(norms['train/grad_norm'].current())
    ):
        return True
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group['params']
        if parameter.grad is not None
    ]
    if not gradients or bool(torch.isfinite(get_total_norm(gradients))):
        return True
    # a norm may be too large for a number although no gradient is
    return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def is_finite(loss: Tensor) -> bool:
    """Tells whether a loss is finite, all of it if it has several numbers."""
    # one number is faster looked at by Python
    return math.isfinite(loss.item()) if loss.numel() == 1 else bool(torch.isfinite(loss).all())


def shares_gradients(model: torch.nn.Module) -> bool:
    """Tells whether all processes have the same gradients after a backward pass."""
    return isinstance(model, torch.nn.parallel.DistributedDataParallel)


def gathered(line: str) -> list[str]:
    """Returns the lines of all processes, with their ranks."""
    if not is_distributed():
        return [line]
    lines: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(lines, line)
    return [f'[rank {rank}] {text}' for rank, text in enumerate(lines)]


def listed(losses: Mapping[str, float]) -> str:
    """Words loss terms."""
    return ', '.join(f'{name} {value:g}' for name, value in losses.items()) or 'no loss'


def of_images(batches: list) -> str:
    """Words the images of batches."""
    names = [name for batch in batches for name in image_names(batch)]
    return f' Images: {", ".join(names)}.' if names else ''
