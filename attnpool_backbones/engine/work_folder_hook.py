"""A work folder that vanishes, has no space left, or holds the files of several runs."""

import errno
import os
import shutil
import time
import uuid
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.saving_errors import how_to_go_on
from attnpool_backbones.registry import HOOKS

__all__ = ['RUN', 'WatchedFolder', 'WorkFolderHook', 'WorkFolderLost', 'went_back']

RUN = 'run'
"""Key of the name of a run in the runtime info of its checkpoints.

A resumed run keeps it, unless it went back.
"""

LITTLE = 2**20
"""Bytes below which a disk is full: lines of the log still have to go somewhere."""


class WorkFolderLost(UserError):
    """The work folder of a running training is no longer there."""


class WatchedFolder:
    """A folder that has to stay the one it was.

    Args:
        path: The folder.
        wait: Whether to wait for it, and for space, instead of raising an error.
        may_change: Whether it is enough that a folder is there: one that nothing keeps busy may be
            unmounted and mounted again. Default: False.
    """

    def __init__(self, path: str, wait: bool, may_change: bool = False) -> None:
        self.path = path
        self.wait = wait
        self.may_change = may_change
        self._identity = self._look()

    def require(self) -> None:
        """Checks the folder.

        Raises:
            OSError: It was removed, moved or unmounted.
        """
        said = ''
        while reason := self._missing():
            if not self.wait:
                raise OSError(errno.ENOENT, reason)
            if reason != said:
                print(f'waiting: {self.path}: {reason}', flush=True)
            said = reason
            time.sleep(1)

    def _missing(self) -> str:
        if self._look() != self._identity:
            return 'the folder is gone (removed, moved, or unmounted)'
        if self.wait and shutil.disk_usage(self.path).free < min(LITTLE, self._total() // 50):
            return 'no space left on its disk'
        return ''

    def _total(self) -> int:
        return shutil.disk_usage(self.path).total

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return (0, 0) if self.may_change else (status.st_dev, status.st_ino)


@HOOKS.register_module()
class WorkFolderHook(Hook):
    """Looks after the work folder before anything of an iteration is written into it.

    Gives every run a random name too, which tells its checkpoints from those of an earlier one.

    Args:
        wait_for_space: Whether training waits while the disk is full or the folder is gone,
            instead of ending. Default: False.
        went_back: Whether the folder has later checkpoints of the run that is resumed, which then
            is named anew. Default: False.
        resume_flags: Whether the command has the flags ``--resume`` and ``--wait-for-space``, which
            messages name. Default: True.
    """

    # before the log is written
    priority = 'VERY_HIGH'

    def __init__(
        self, wait_for_space: bool = False, went_back: bool = False, resume_flags: bool = True
    ) -> None:
        self.wait_for_space = wait_for_space
        self.went_back = went_back
        self.resume_flags = resume_flags
        self._curves, self._has_curves = '', False

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Remembers the folder, and names the run if it starts from the beginning or went back.

        Args:
            runner: The starting training.
        """
        if runner.iter and self.went_back:
            runner.logger.warning(
                f'{runner.work_dir} has checkpoints of this run after iteration {runner.iter}, '
                'from which it goes on: it becomes a run of its own, and --resume auto leaves them '
                'out as soon as it has saved a checkpoint.'
            )
        if runner.iter == 0 or self.went_back:
            runner.message_hub.update_info(RUN, uuid.uuid4().hex)
        self._folder = WatchedFolder(runner.work_dir, self.wait_for_space)
        self._curves = os.path.join(runner.log_dir, 'vis_data')
        self._has_curves = os.path.isdir(self._curves)

    @master_only
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Checks the folder, and makes that of the curves again if somebody has tidied it up.

        Args:
            runner: The running training.
            batch_idx: Index of the batch in its epoch.
            data_batch: The batch.
            outputs: The losses.

        Raises:
            WorkFolderLost: It was removed, moved or unmounted.
        """
        try:
            self._folder.require()
        except OSError as error:
            raise WorkFolderLost(
                f'{runner.work_dir}: {error.strerror}. Bring it back; '
                f'{how_to_go_on(self.resume_flags, " from its last checkpoint")}'
            ) from error
        self._keep_curves(runner)

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Makes the folder of the curves again, into which the scores go.

        Args:
            runner: The running training.
            metrics: The scores.
        """
        self._keep_curves(runner)

    def _keep_curves(self, runner: Runner) -> None:
        if self._has_curves and not os.path.isdir(self._curves):
            os.makedirs(self._curves)
            runner.logger.warning(
                f'{self._curves} was removed while the training ran: it is made again, without '
                'the curves so far.'
            )


def went_back(runner: Runner) -> bool:
    """Tells whether a run leaves later checkpoints of the one that it goes on from."""
    return any(isinstance(hook, WorkFolderHook) and hook.went_back for hook in runner.hooks)
