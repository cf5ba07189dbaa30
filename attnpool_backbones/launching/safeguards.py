"""What keeps a training from being lost, in whatever config: loops, saving and checks of ours."""

from mmengine.config import Config, ConfigDict

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name
from attnpool_backbones.duration import seconds_of
from attnpool_backbones.engine.agreement import LONGEST_WAIT
from attnpool_backbones.registry import SCOPE

__all__ = ['add_safeguards', 'average_hooks']

HOOKS = (
    'ResumeCheckHook', 'WorkFolderHook', 'InvalidLossHook', 'RandomStateHook', 'SharedBuffersHook'
)  # fmt: skip


def add_safeguards(cfg: Config, every: str | None = None, wait_for_space: bool = False) -> None:
    """Puts this package's loops and hooks in the place of mmengine's, which lose more.

    Types of others stay. Doing it again changes nothing more.

    Args:
        cfg: The whole config of a training, changed in-place.
        every: Time after which the state is saved, as ``'10m'``. Default: None, what the config
            says.
        wait_for_space: Whether to wait while the disk is full. Default: False, what the config
            says.

    Raises:
        UserError: If ``every`` is no duration, the config's checkpoint hook cannot do it, or the
            config has several hooks that average the weights.
    """
    averages = average_hooks(cfg)
    if len(averages) > 1:
        raise UserError(
            f'{cfg.filename} has {len(averages)} hooks of type EMAHook, which together lose the '
            'weights of the training at a validation. Keep one of '
            + ', '.join(str(dict(hook)) for hook in averages)
        )
    replace_loop(cfg)
    saving = replace_saving(cfg)
    if every is not None:
        try:
            seconds_of(every)
        except ValueError as error:
            raise UserError(f'--checkpoint-every {error}') from error
    wishes = {'every': every, 'wait_for_space': wait_for_space or None}
    wishes = {name: value for name, value in wishes.items() if value is not None}
    if wishes and saving is None:
        option = '--checkpoint-every' if 'every' in wishes else '--wait-for-space'
        raise UserError(
            f'{option} needs default_hooks.checkpoint of type CheckpointHook or '
            f'{SCOPE}.SafeCheckpointHook in {cfg.filename}'
        )
    if saving is not None:
        saving.update(wishes)
    hooks = list(cfg.get('custom_hooks') or [])
    for hook in hooks:
        if type_name(hook) == 'EarlyStoppingHook':
            hook['type'] = f'{SCOPE}.ResumableEarlyStoppingHook'
    present = {type_name(hook) for hook in hooks if isinstance(hook, dict)}
    cfg.custom_hooks = hooks + [
        ConfigDict(type=f'{SCOPE}.{name}') for name in HOOKS if name not in present
    ]
    if wait_for_space:
        # the other processes wait for the one that waits for space
        processes = cfg.setdefault('env_cfg', ConfigDict()).setdefault('dist_cfg', ConfigDict())
        processes.setdefault('timeout', int(LONGEST_WAIT.total_seconds()))
        for hook in cfg.custom_hooks:
            if type_name(hook) == 'WorkFolderHook':
                hook.wait_for_space = True


def average_hooks(cfg: Config) -> list[dict]:
    """Returns the entries of all hooks that average the weights."""
    default, custom = cfg.get('default_hooks') or {}, cfg.get('custom_hooks') or []
    return [hook for hook in (*default.values(), *custom) if type_name(hook) == 'EMAHook']


def replace_loop(cfg: Config) -> None:
    """Makes mmengine's loops resumable at any iteration."""
    loop = cfg.get('train_cfg')
    if not isinstance(loop, dict):
        return
    kind = type_name(loop)
    if 'by_epoch' in loop:
        told = 'EpochBasedTrainLoop' if loop.by_epoch else 'IterBasedTrainLoop'
        if kind in ('', told):  # mmengine refuses both, which configs of mmdet's SOLOv2 inherit
            kind = told
            del loop['by_epoch']
    if kind == 'EpochBasedTrainLoop':
        loop.type = f'{SCOPE}.ResumableEpochBasedTrainLoop'
    elif kind == 'IterBasedTrainLoop':
        loader = cfg.get('train_dataloader') or {}
        sampler = type_name(loader.get('sampler'))
        plain = sampler == 'InfiniteSampler' and loader.get('batch_sampler') is None
        loop.type = f'{SCOPE}.ResumableIterBasedTrainLoop' if plain else 'IterBasedTrainLoop'


def replace_saving(cfg: Config) -> ConfigDict | None:
    """Makes mmengine's checkpoint hook safe; returns it, or None if it is of somebody else."""
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    # mmengine registers its own one where a config has none
    hook = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    kind = type_name(hook) if isinstance(hook, dict) else None
    if kind == 'CheckpointHook':
        hook.type = f'{SCOPE}.SafeCheckpointHook'
    return hook if kind in ('CheckpointHook', 'SafeCheckpointHook') else None
