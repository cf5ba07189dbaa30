"""What a loaded checkpoint may do to a run: set its weights, and no more."""

import os.path as osp
from copy import copy
from typing import Any

from mmengine.fileio import isfile
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, FlexibleRunner, Runner
from torch import nn

from attnpool_backbones.checkpoints.errors import CheckpointError, CheckpointMismatch
from attnpool_backbones.checkpoints.finite_weights import looks_like_weight, require_finite_weights
from attnpool_backbones.checkpoints.matching import (
    as_loaded,
    model_shapes,
    names_in_model,
    require_no_lookalikes,
    require_whole_model,
    shapes_of,
)
from attnpool_backbones.checkpoints.message_texts import list_content
from attnpool_backbones.checkpoints.reading import explained
from attnpool_backbones.checkpoints.wrapped_names import renamed
from attnpool_backbones.engine.checkpoint_hook import OUTDATED
from attnpool_backbones.engine.own_checkpoints import is_same_place
from attnpool_backbones.engine.wrapped_models import bare_model
from attnpool_backbones.registry import HOOKS

__all__ = ['LoadGuardHook']

PARTLY = 'load_partly'
"""Setting of a config that lets layers stay random although a file may have their weights."""


@HOOKS.register_module()
class LoadGuardHook(Hook):
    """Checks what a Runner is about to load from ``load_from`` or a checkpoint to resume.

    - Names are freed of what wrappers put into them, and of a common prefix; weights that stand
      alone, without ``state_dict`` around them, get one. What a model renames itself when it is
      loaded counts by its new names.
    - Resuming and testing need every parameter of the model, and all statistics of its norms.
    - A training that starts from other weights is refused if none of them fits, or if whole layers
      would stay random while the file has unknown weights of the same shapes. The setting
      ``load_partly=True`` allows the latter.
    - Of the files that a resumed run knows (its best checkpoint, those it keeps), only those in
      the own folder count: the hooks that save delete them when better ones come. A file of
      another folder knows none here.

    Raises ``CheckpointError`` with the names of what does not fit.
    """

    # before any hook that uses the content, such as ResumeCheckHook and EMAHook
    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Checks a checkpoint, and corrects names and paths in it.

        Args:
            runner: The run.
            checkpoint: Its content; changed in-place.
        """
        path = str(runner._load_from or 'the checkpoint')
        weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
        if not isinstance(weights, dict):
            raise CheckpointError(
                f'no state dict in {path}, which holds {list_content(checkpoint)}'
            )
        if weights is checkpoint and not runner._resume:
            # EMAHook looks for them there; with what torch has attached to them
            weights = copy(checkpoint)
            checkpoint.clear()
            checkpoint['state_dict'] = weights
        keep_to_own_files(runner, checkpoint)
        model = unsharded_model(runner)
        if model is None:
            return
        with explained(path):
            fit_names(weights, model)
            loaded = as_loaded(weights, model)
            kinds = {name: value.is_floating_point() for name, value in model.state_dict().items()}
            # those that look like weights have been checked when they were read
            tensors = {n: loaded[n] for n in shapes_of(loaded)
                       if n in kinds and not looks_like_weight(n)}  # fmt: skip
            require_finite_weights(tensors, kinds.__getitem__)
        stored, targets = shapes_of(loaded), model_shapes(model)
        is_start = isinstance(runner._train_loop, BaseLoop) and not runner._resume
        if not is_start:
            require_whole_model(model, stored, path)
            return
        if not any(stored.get(name) == shape for name, shape in targets.items()):
            raise CheckpointMismatch(
                f'{path} has none of the {len(targets)} parameters of this {type(model).__name__}; '
                'it is of another model'
            )
        if not runner.cfg.get(PARTLY):
            require_no_lookalikes(
                targets,
                stored,
                path,
                f'Rename them in a copy of the file; with --cfg-options {PARTLY}=True the rest is '
                'loaded.',
            )


def unsharded_model(runner: Runner | FlexibleRunner) -> nn.Module | None:
    """Returns the bare model of a run with the names and shapes of its checkpoints, if known."""
    if isinstance(runner, Runner):
        return bare_model(runner.model)
    # other strategies name weights in their way
    return getattr(runner.strategy, 'unsharded_model', None)


def fit_names(weights: dict[str, Any], model: nn.Module) -> None:
    """Gives weights the names that a model has for them.

    Args:
        weights: Changed in-place.
        model: The model.

    Raises:
        CheckpointError: Two names become one, and their numbers differ.
    """
    tensors = shapes_of(weights)
    new_names = names_in_model(tensors, model.state_dict())
    if all(name == new for name, new in new_names.items()):
        return
    values = renamed({name: weights[name] for name in tensors}, new_names)
    for name in tensors:
        del weights[name]
    weights.update(values)


def keep_to_own_files(runner: Runner, checkpoint: dict) -> None:
    """Leaves a resumed run only files of the own folder to take care of.

    Args:
        runner: The run.
        checkpoint: Its content; changed in-place.
    """
    hub = checkpoint.get('message_hub')
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    if not isinstance(info, dict):
        return
    folder, backend_args = runner.work_dir, None
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.out_dir not in (None, runner.work_dir):
            # as mmengine's hook puts it together when training starts
            folder = osp.join(hook.out_dir, osp.basename(runner.work_dir.rstrip(osp.sep)))
            backend_args = hook.backend_args
    # elsewhere, other files have the same names; without a file mmengine looks in the folder
    place = None if runner._load_from is None else folder_of(str(runner._load_from))
    is_own = place is None or any(is_same_place(place, own) for own in (folder, runner.work_dir))
    if not is_own:
        for key in ('keep_ckpt_ids', OUTDATED):
            info.pop(key, None)
    for key in [k for k in info if str(k).startswith('best_ckpt') or k == 'last_ckpt']:
        name = osp.basename(str(info[key]))
        file = osp.join(folder, name)
        is_best = is_own and (name.startswith('best_') or key == 'last_ckpt')
        if is_best and osp.splitext(name)[1] == '.pth' and is_own_file(file, backend_args):
            info[key] = file
        else:
            del info[key]
    if 'keep_ckpt_ids' in info:
        numbers = info['keep_ckpt_ids'] if isinstance(info['keep_ckpt_ids'], list) else []
        info['keep_ckpt_ids'] = [number for number in numbers if type(number) is int]


def folder_of(path: str) -> str:
    """Returns the folder of a file, or the address of it."""
    return osp.dirname(path if '://' in path else osp.abspath(path))


def is_own_file(path: str, backend_args: dict | None) -> bool:
    """Tells whether a path or an address is that of a file, and no link to another one."""
    if '://' in path:
        return isfile(path, backend_args)
    return osp.isfile(path) and not osp.islink(path)
