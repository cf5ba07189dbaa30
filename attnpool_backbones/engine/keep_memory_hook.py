"""Keeps memory that a training on a CPU has freed."""

import logging

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from attnpool_backbones.process_memory import keep_free_memory
from attnpool_backbones.registry import HOOKS

__all__ = ['KeepMemoryHook']


@HOOKS.register_module()
class KeepMemoryHook(Hook):
    """Makes the process keep all memory it has had, as caching allocators do, from the start on.

    glibc gives large blocks back to the system when they are freed; those of the next step are
    then fresh pages, and touching them takes up to a fifth of a training step on a CPU. Memory is
    kept from the first steps on (glibc before 2.38 takes some ten of them until freed blocks serve
    again). It is never given back, so the process stays as large as its largest step. On CUDA and
    with other C libraries nothing changes.
    """

    def before_run(self, runner: Runner) -> None:
        """Tells the C library, and the log if it cannot.

        Args:
            runner: About to train, validate or test.
        """
        if torch.cuda.is_available():
            return
        if not keep_free_memory():
            message = 'KeepMemoryHook: the C library of this system cannot keep memory; glibc can'
            print_log(message, 'current', logging.WARNING)
