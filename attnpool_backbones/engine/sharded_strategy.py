"""Training whose parameters, gradients and optimizer states are spread over the processes.

Fully sharded data parallel (FSDP, arXiv 2304.11277), for models that fit on no single device with
their optimizer.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import mmengine
import torch
from mmengine._strategy import FSDPStrategy
from mmengine.dist import is_main_process
from mmengine.optim import BaseOptimWrapper, build_optim_wrapper
from mmengine.runner.checkpoint import save_checkpoint
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
)
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy
from torch.nn.utils import clip_grad_norm_

from attnpool_backbones.atomic_files import ATOMIC_BACKEND
from attnpool_backbones.config_types import type_name
from attnpool_backbones.registry import STRATEGIES

__all__ = ['ShardedStrategy', 'backbone_layers']

WRAPPED = '_fsdp_wrapped_module.'


def backbone_layers(model: nn.Module) -> list[nn.Module]:
    """Lists the modules that are gathered and freed one by one.

    Args:
        model: With a backbone of this package.

    Returns:
        Stem and blocks of the backbone, those with parameters. Heads are not among
        them: detectors call other methods of a head than ``forward``, the only one that gathers.

    Raises:
        TypeError: If the backbone does not tell its layers.
    """
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'layer_prefixes'):
        raise TypeError(
            'ShardedStrategy asks model.backbone.layer_prefixes() what to shard, which '
            f'{type(model).__name__} with a backbone of type {type(backbone).__name__} lacks; use '
            'a backbone of attnpool_backbones'
        )
    modules = dict(backbone.named_modules())
    named = [prefix for prefixes in backbone.layer_prefixes() for prefix in prefixes]
    layers = [modules[name] for name in named if name in modules]
    return [layer for layer in layers if next(layer.parameters(), None) is not None]


def copy_on_meta(model: nn.Module) -> nn.Module:
    """Copies a model without its numbers: what is left are names, shapes and types."""
    tensors = (*model.parameters(), *model.buffers())
    return deepcopy(model, {id(tensor): tensor.detach().to('meta') for tensor in tensors})


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """mmengine's FSDP strategy, for the backbones and the tools of this package.

    What differs:

    - the stem and every block of the backbone are sharded as units of their own;
    - optimizer groups are made from the whole model. mmengine makes them from its shards, which
      have one dimension and other names: layer-wise decay and weight decay would go astray;
    - gradients are clipped by the norm of the whole gradient, not by that of a process's share;
    - checkpoints hold the weights of the unsharded model, are written whole or not at all, and can
      be resumed by as many processes (mmengine 0.10.7 passes the arguments of
      ``optim_state_dict_to_load`` in the order of torch 2.0, which later ones refuse);
    - it runs on CPUs too, with gloo.

    Args:
        model_wrapper: Further arguments of
            :class:`mmengine.model.MMFullyShardedDataParallel`, e.g.
            ``dict(sharding_strategy='SHARD_GRAD_OP')``. Default: None.
        sync_bn: Kind of synchronised batch norm to convert to. Default: None.
        work_dir: Folder for logs and checkpoints. Default: ``'work_dirs'``.
        experiment_name: Name of the run. Default: None.
        env_kwargs: Settings of the processes. Default: None.
        log_kwargs: Settings of the logger. Default: None.
        auto_scale_lr: Batch size of the recipe, and whether to scale by it. Defaults
            to None.

    Attributes:
        unsharded_model: A copy of the model before it was sharded, on the ``meta`` device; None
            until there is one.
        wait_for_space: Whether saving waits while the disk is full. Default: False; set by
            :class:`~attnpool_backbones.engine.SafeCheckpointHook`.
    """

    def __init__(
        self,
        *,
        model_wrapper: dict | None = None,
        sync_bn: str | None = None,
        work_dir: str = 'work_dirs',
        experiment_name: str | None = None,
        env_kwargs: dict | None = None,
        log_kwargs: dict | None = None,
        auto_scale_lr: dict | None = None,
    ) -> None:
        super().__init__(
            model_wrapper=model_wrapper,
            state_dict_cfg='full',
            sync_bn=sync_bn,
            work_dir=work_dir,
            experiment_name=experiment_name,
            env_kwargs=env_kwargs,
            log_kwargs=log_kwargs,
            auto_scale_lr=auto_scale_lr,
        )
        self.unsharded_model: nn.Module | None = None
        self.wait_for_space = False
        # without CUDA "offloading" frees the very storage that it has just handed out
        offload = torch.cuda.is_available()
        self.state_dict_config = FullStateDictConfig(rank0_only=True, offload_to_cpu=offload)
        self.optim_state_dict_config = FullOptimStateDictConfig(
            rank0_only=True, offload_to_cpu=offload
        )

    def prepare(
        self,
        model: nn.Module | dict,
        *,
        optim_wrapper: BaseOptimWrapper | dict | None = None,
        param_scheduler: Any = None,
        compile: dict | bool = False,
        dispatch_kwargs: dict | None = None,
    ) -> Any:
        """Builds what a run needs; see :meth:`mmengine._strategy.BaseStrategy.prepare`."""
        if isinstance(optim_wrapper, dict) and not self._prepared:
            model = self.build_model(model)
            settings = dict(optim_wrapper)
            if type_name(settings) == 'AmpOptimWrapper':
                settings['use_fsdp'] = True
            optim_wrapper = build_optim_wrapper(model, settings)
        return super().prepare(
            model,
            optim_wrapper=optim_wrapper,
            param_scheduler=param_scheduler,
            compile=compile,
            dispatch_kwargs=dispatch_kwargs,
        )

    def _wrap_model(self, model: nn.Module) -> FullyShardedDataParallel:
        self.unsharded_model = copy_on_meta(model)
        layers = set(backbone_layers(model))
        on_cuda = torch.cuda.is_available()
        self.model_wrapper = dict(
            type='MMFullyShardedDataParallel',
            auto_wrap_policy=partial(lambda_auto_wrap_policy, lambda_fn=layers.__contains__),
            device_id=torch.cuda.current_device() if on_cuda else torch.device('cpu'),
        ) | dict(self.model_wrapper or {})
        return super()._wrap_model(self.convert_model(model))

    def build_optim_wrapper(
        self, optim_wrapper: BaseOptimWrapper, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        """Lets an optimizer of the whole model work on the shards.

        Args:
            optim_wrapper: Made from the model before it was sharded, without
                state.
            model: The sharded model.

        Returns:
            The same one.
        """
        shards = {name.replace(WRAPPED, ''): shard for name, shard in model.named_parameters()}
        for group in optim_wrapper.optimizer.param_groups:
            group['params'] = [shards[self.id_to_name[id(whole)]] for whole in group['params']]
        if optim_wrapper.clip_grad_kwargs and optim_wrapper.clip_func is clip_grad_norm_:
            optim_wrapper.clip_func = lambda params, **settings: model.clip_grad_norm_(**settings)
        return optim_wrapper

    def optim_state_dict(self) -> dict:
        """Gathers the state of the optimizer.

        Returns:
            By parameter name, with what the wrapper adds (the loss scale). Without the
            optimizer's state in all but the first process.
        """
        wrapper = self.optim_wrapper.state_dict()
        wrapper.pop('state')
        wrapper.pop('param_groups')
        state = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        return {**state, **wrapper}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Takes each process's share of a gathered state.

        Args:
            state_dict: From :meth:`optim_state_dict`.
        """
        wrapper = {k: v for k, v in state_dict.items() if k not in ('state', 'param_groups')}
        state = FullyShardedDataParallel.optim_state_dict_to_load(
            self.model,
            self.optim_wrapper.optimizer,
            {key: state_dict[key] for key in ('state', 'param_groups')},
        )
        self.optim_wrapper.load_state_dict({**state, **wrapper})

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: dict | None = None,
        callback: Callable[[dict], None] | None = None,
    ) -> None:
        """Gathers a checkpoint and lets the first process write it.

        Args:
            filename: Where to.
            save_optimizer: Whether the optimizer's state is in it. Default: True.
            save_param_scheduler: Whether the schedules are in it. Default: True.
            extra_ckpt: What else is in it. Default: None.
            callback: Called with the checkpoint before it is written. Defaults
                to None.
        """
        checkpoint = dict(state_dict=self.model_state_dict())
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            checkpoint['optimizer'] = self.optim_state_dict()
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            checkpoint['param_schedulers'] = self.scheduler_state_dict()
        checkpoint.update(extra_ckpt or {})
        checkpoint['meta'] = dict(
            checkpoint.get('meta') or {},
            seed=self.seed,
            time=time.strftime('%Y%m%d_%H%M%S'),
            mmengine=mmengine.__version__,
        )
        if callback is not None:
            callback(checkpoint)
        if is_main_process():
            atomic = dict(backend=ATOMIC_BACKEND, wait_for_space=self.wait_for_space)
            backend = None if '://' in filename else atomic
            save_checkpoint(checkpoint, filename, backend_args=backend)
