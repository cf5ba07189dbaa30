"""Why the state of a training was not saved, in one message."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from attnpool_backbones.checkpoints.errors import CheckpointError
from attnpool_backbones.checkpoints.finite_weights import require_finite_weights
from attnpool_backbones.checkpoints.matching import tensors_of
from attnpool_backbones.command_line import UserError

__all__ = [
    'NonFiniteWeights', 'SavingError', 'how_to_go_on', 'require_savable', 'tells_why_saving_failed',
]  # fmt: skip


class SavingError(UserError):
    """A checkpoint cannot be written."""


class NonFiniteWeights(UserError):
    """The weights of a training are no numbers any more."""


def how_to_go_on(resume_flags: bool, place: str = '') -> str:
    """Words how a training goes on that the disk has ended.

    Args:
        resume_flags: Whether its command has the flags ``--resume`` and ``--wait-for-space``.
        place: From where. Default: not told.
    """
    if not resume_flags:
        return f'the same command goes on{place}'
    return (
        f'the same command with --resume auto goes on{place} (with --wait-for-space it waits '
        'instead of ending)'
    )


def tells_why_saving_failed(save: Callable) -> Callable:
    """Turns an error of the disk in a method of :class:`SafeCheckpointHook` into one message."""

    @wraps(save)
    def guarded(self: CheckpointHook, runner: Runner, *args: Any, **kwargs: Any) -> None:
        try:
            save(self, runner, *args, **kwargs)
        except OSError as error:
            good = self.last_good and f' The last good state is {self.last_good}.'
            # of two disks only some errors tell which one it is
            places = ' and '.join(dict.fromkeys((str(self.out_dir), runner.work_dir)))
            raise SavingError(
                f'the state of the training could not be saved in {places}: '
                f'{error.strerror or error}.{good or ""} Put it right; '
                f'{how_to_go_on(self.resume_flags)}'
            ) from error

    return guarded


def require_savable(checkpoint: Mapping[str, Any], last_good: str | None) -> None:
    """Refuses weights that are of no use.

    Args:
        checkpoint: What would be written.
        last_good: The checkpoint before, for the message.

    Raises:
        NonFiniteWeights: Naming the weights that are not finite numbers.
    """
    for key in ('state_dict', 'ema_state_dict'):
        weights = checkpoint.get(key) or {}
        try:
            require_finite_weights(tensors_of(weights))
        except CheckpointError as error:
            good = f'; the last good state is {last_good}' if last_good else ''
            raise NonFiniteWeights(
                f'after iteration {checkpoint["meta"]["iter"]} nothing was saved, because in '
                f'the {key} of the training {error}{good}'
            ) from None
