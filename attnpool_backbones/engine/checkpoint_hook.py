"""mmengine's checkpoint hook, made safe against kills, signals, full disks and broken weights."""

import os
import os.path as osp
import sys
import time
from collections.abc import Iterable
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from attnpool_backbones.atomic_files import ATOMIC_BACKEND, AtomicLocalBackend, remove_stale_files
from attnpool_backbones.checkpoints.plain_history import as_plain_data, without_functions
from attnpool_backbones.duration import seconds_of
from attnpool_backbones.engine.optimizers import accumulative_counts, is_between_updates
from attnpool_backbones.engine.own_checkpoints import (
    INTERIM,
    OwnCheckpoints,
    is_same_place,
    remove_interim,
)
from attnpool_backbones.engine.pending_gradients import (
    PendingGradients,
    add_pending_gradients,
    put_back,
    take_pending_gradients,
)
from attnpool_backbones.engine.postponed_removals import PostponedRemovals
from attnpool_backbones.engine.publishing import publish
from attnpool_backbones.engine.resumable_loop import BATCHES_DONE, VALIDATED
from attnpool_backbones.engine.saving_errors import require_savable, tells_why_saving_failed
from attnpool_backbones.engine.wishes import Wishes
from attnpool_backbones.engine.work_folder_hook import WatchedFolder, went_back
from attnpool_backbones.registry import HOOKS
from attnpool_backbones.stop_signals import Stopped, signal_name

__all__ = ['SafeCheckpointHook']

OUTDATED = 'outdated_ckpts'
"""Where a checkpoint tells which files go when it is in place."""

FORMER_VALIDATED = 'validated_iter'
"""Where files of before have :data:`VALIDATED`."""


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Saves checkpoints so that a stopped or killed run can always be resumed, exactly.

    Takes the arguments of :class:`mmengine.hooks.CheckpointHook` and keeps its file names, its
    ``save_best``, ``max_keep_ckpts`` and ``published_keys``. What differs:

    - local files, ``last_checkpoint`` included, are written whole or not at all;
    - an old checkpoint is deleted only when its successor is in place, so that with
      ``max_keep_ckpts=1`` there is always one; what a kill left over is deleted when training
      starts again, and never a file elsewhere or of another pattern;
    - weights that are not finite are never saved;
    - the gradient of an update that was begun is saved too, if one process trains;
    - under the resumable loops, a signal (SIGTERM, SIGUSR1, SIGHUP, SIGINT) to any process saves
      ``interim_iter_N.pth`` in the work folder after the running iteration and ends all of them;
      it waits for the end of gradient accumulation, and leaves a validation.

    Args:
        every: Time after which an ``interim_iter_N.pth`` is saved, as ``'10m'``; only the last one
            is kept. Default: None, never.
        wait_for_space: Whether training waits while the disk is full or the work folder is not
            there, instead of ending. Default: False.
        resume_flags: Whether the command has the flags ``--resume`` and ``--wait-for-space``, which
            messages name. Default: True.
        **kwargs: Of :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(
        self,
        *args: Any,
        every: str | float | None = None,
        wait_for_space: bool = False,
        resume_flags: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.every = None if every is None else seconds_of(every)
        self.wait_for_space = wait_for_space
        self.resume_flags = resume_flags
        self.last_good: str | None = None
        self._removals: PostponedRemovals | None = None
        self._saved_iter = self._saved_validation = -1
        self._saved_at = 0.0
        self._wishes: Wishes | None = None
        self._folder: WatchedFolder | None = None
        self._out_folder: WatchedFolder | None = None
        self._pending: PendingGradients | None = None
        self._told = False

    @property
    def _local(self) -> dict:
        return dict(backend=ATOMIC_BACKEND, wait_for_space=self.wait_for_space)

    def before_train(self, runner: Runner) -> None:
        """Chooses where and how files are written, and cleans up after a killed run.

        Args:
            runner: The starting training.
        """
        out_dir = str(self.out_dir or runner.work_dir)
        if '://' not in out_dir and self.backend_args is None and self.file_client_args is None:
            self.backend_args = self._local
        info = runner.message_hub.runtime_info
        # a checkpoint is a file of anybody's: only numbers make names of this run
        kept = [step for step in info.get('keep_ckpt_ids') or [] if type(step) is int]
        if 'keep_ckpt_ids' in info:
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        super().before_train(runner)
        self._take_over(runner)
        self._saved_at = time.monotonic()
        self._wishes = Wishes(runner)
        self._go_on_with_update(runner)
        strategy = getattr(runner, 'strategy', None)
        if hasattr(strategy, 'wait_for_space'):
            # it writes its checkpoints itself
            strategy.wait_for_space = self.wait_for_space
        if is_main_process():
            self._folder = WatchedFolder(runner.work_dir, self.wait_for_space)
            if self.backend_args == self._local:
                os.makedirs(self.out_dir, exist_ok=True)
                self._out_folder = WatchedFolder(self.out_dir, self.wait_for_space, may_change=True)
            for folder in {str(self.out_dir), runner.work_dir}:
                for file in remove_stale_files(folder):
                    runner.logger.info(f'Removed the unfinished file {file} of a killed run.')
            self._remove_outdated(runner, info.get(OUTDATED) or [])

    def _go_on_with_update(self, runner: Runner) -> None:
        """Puts the gradient of the checkpoint back, if it is a part of the same update."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        counts = accumulative_counts(runner.optim_wrapper)
        if pending.counts not in (None, counts):
            was, now = (', '.join(map(str, each)) for each in (pending.counts, counts))
            runner.logger.warning(
                f'accumulative_counts was {was}, now it is {now}: the next update is made without '
                'the batches before the checkpoint.'
            )
            return
        if is_between_updates(runner.optim_wrapper):
            return
        put_back(pending, runner.optim_wrapper)
        runner.logger.info("The gradient of the update that was begun is the checkpoint's.")

    def _take_over(self, runner: Runner) -> None:
        """Finds the files of the resumed run, in its own folder."""
        if self.save_best is not None and hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        elif self.save_best is not None:
            paths = self.best_ckpt_path_dict
            self.best_ckpt_path_dict = {key: self._own(path) for key, path in paths.items()}
        if runner.iter:
            # before an interim one
            self.last_ckpt = self._own(runner.message_hub.runtime_info.get('last_ckpt'))
            step = runner.epoch if self.by_epoch else runner.iter
            path = self._own(self.filename_tmpl.format(step))
            # another run may have left a file of this name
            if path and is_same_place(path, str(runner._load_from)):
                self.last_ckpt = self.last_good = path
                # a run that went back has a new name, which the file does not tell
                self._saved_iter = -1 if went_back(runner) else runner.iter
                self._saved_validation = runner.message_hub.get_info(VALIDATED, -1)

    def _own(self, path: Any) -> str | None:
        return OwnCheckpoints(self.file_backend, self.out_dir, self.filename_tmpl).find(path)

    def _remove_outdated(self, runner: Runner, names: Iterable) -> None:
        """Removes what the run before had replaced, but was killed before it removed it."""
        kept = {self.filename_tmpl.format(step) for step in getattr(self, 'keep_ckpt_ids', ())}
        kept.add(osp.basename(self.last_ckpt or ''))
        own = OwnCheckpoints(self.file_backend, self.out_dir, self.filename_tmpl)
        for path in own.remove(name for name in map(str, names) if osp.basename(name) not in kept):
            runner.logger.info(f'Removed {path}, which a later checkpoint had replaced.')

    @tells_why_saving_failed
    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self._require_out_folder()
        outdated = None
        if self.max_keep_ckpts > 0 and list(self.keep_ckpt_ids)[-1:] != [step]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        removed = [outdated] if outdated else []
        if self._removals is not None:
            removed += [osp.basename(path) for path in self._removals.noted]
        runner.message_hub.update_info(OUTDATED, removed)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._note(runner, self.last_ckpt, meta['iter'])
        if not is_main_process():
            return
        if outdated is not None:
            path = self.file_backend.join_path(self.out_dir, outdated)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):
                # deepspeed's checkpoints are folders
                self.file_backend.rmtree(path)

    def _note(self, runner: Runner, path: str, iteration: int) -> None:
        """Notes that a checkpoint is in place, and removes the interim ones before it."""
        self.last_good = path
        self._saved_iter = iteration
        self._saved_at = time.monotonic()
        self._saved_validation = runner.message_hub.get_info(VALIDATED, -1)
        if not is_main_process():
            return
        backend = AtomicLocalBackend(self.wait_for_space)
        backend.put(path.encode(), osp.join(runner.work_dir, 'last_checkpoint'))
        remove_interim(runner.work_dir, path, iteration)

    @tells_why_saving_failed
    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        # a validation without a training: there is no folder yet, and nothing new to keep
        if not self.save_best or not hasattr(self, 'file_backend'):
            return
        missing = [key for key in self.key_indicators if key not in {'auto', *metrics}]
        if missing:
            runner.logger.warning(
                f'There is no best checkpoint by {", ".join(missing)}: this validation has '
                f'{", ".join(metrics) or "no scores"}.'
            )
            # which mmengine passes over
            metrics = {**metrics, **dict.fromkeys(missing)}
        self._require_out_folder()
        # mmengine removes the previous best file before it writes the new one
        backend = self.file_backend
        self.file_backend = self._removals = PostponedRemovals(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            postponed, self.file_backend, self._removals = self.file_backend, backend, None
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        postponed.carry_out(keep={self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best})

    @tells_why_saving_failed
    def _save_interim(self, runner: Runner, iteration: int) -> None:
        name = INTERIM.format(iteration)
        runner.save_checkpoint(
            runner.work_dir,
            name,
            meta=dict(epoch=runner.epoch, iter=iteration),
            by_epoch=False,
            backend_args=self._local,
        )
        self._note(runner, osp.join(runner.work_dir, name), iteration)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuses to save where nothing was expected, and what is of no use; saves plain data.

        Args:
            runner: The running training.
            checkpoint: What will be written.

        Raises:
            OSError: The work folder is no longer the one in which training started.
            NonFiniteWeights: Naming the weights.
        """
        require_savable(checkpoint, self.last_good)
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = as_plain_data(checkpoint['message_hub'])
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = without_functions(checkpoint['param_schedulers'])
        self._add_gradients(runner, checkpoint)
        if self._folder is not None:
            self._folder.require()

    def _require_out_folder(self) -> None:
        if self._out_folder is not None:
            self._out_folder.require()

    def _add_gradients(self, runner: Runner, checkpoint: dict) -> None:
        if 'optimizer' not in checkpoint or is_between_updates(runner.optim_wrapper):
            return
        if runner.world_size == 1:
            add_pending_gradients(checkpoint, runner.optim_wrapper)
        elif not self._told:
            self._told = True
            runner.logger.warning(
                'Checkpoints in the middle of gradient accumulation do not hold the gradient, of '
                'which each process has a part: a training that is resumed from one makes its next '
                'update without the batches before.'
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the gradient of an update that was begun, if a training is resumed.

        Args:
            runner: About to start.
            checkpoint: What was read.
        """
        if not runner._resume:
            return
        self._pending = take_pending_gradients(checkpoint)
        info = checkpoint['message_hub']['runtime_info']
        if FORMER_VALIDATED in info:
            info[VALIDATED] = info.pop(FORMER_VALIDATED)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Saves if it is time to, and stops if a signal asked for it.

        Args:
            runner: The running training.
            batch_idx: Index of the batch in its epoch.
            data_batch: The batch.
            outputs: The losses.

        Raises:
            Stopped: After a signal.
        """
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            done = [batch_idx + 1, len(loop.dataloader), runner.epoch]
            runner.message_hub.update_info(BATCHES_DONE, done)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        number, due = self._wishes.agreed(runner, self._is_due())
        if not (number or due) or not is_between_updates(runner.optim_wrapper):
            return
        if self._saved_iter != runner.iter + 1:
            self._save_interim(runner, runner.iter + 1)
        if number:
            self._stop(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Saves the checkpoint of an epoch, which begins the next one.

        Args:
            runner: The running training.
        """
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            runner.message_hub.update_info(BATCHES_DONE, [0, len(loop.dataloader)])
        super().after_train_epoch(runner)

    def _is_due(self) -> bool:
        return self.every is not None and time.monotonic() - self._saved_at >= self.every

    def _stop(self, runner: Runner) -> None:
        # one process writes; launchers that see another one end kill it
        number, _ = self._wishes.agreed(runner, due=False)
        if is_main_process():
            flag = ' with --resume auto' if self.resume_flags else ''
            print(
                f'stopped by {signal_name(number)}; the state after iteration {self._saved_iter} '
                f'is in {self.last_good}. The same command{flag} goes on from there',
                file=sys.stderr,
                flush=True,
            )
        raise Stopped(number)

    def after_stopped_validation(self, runner: Runner) -> None:
        """Saves and stops; when the training goes on, it begins with the validation.

        Args:
            runner: The running training.

        Raises:
            Stopped: Always.
        """
        if self._saved_iter != runner.iter:
            self._save_interim(runner, runner.iter)
        self._stop(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Notes that the validation is done, and saves the best checkpoint.

        Args:
            runner: The running training.
            metrics: The scores.
        """
        runner.message_hub.update_info(VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        """Tells the last checkpoint that its validation is done, and publishes.

        Args:
            runner: The ended training.
        """
        validated = runner.message_hub.get_info(VALIDATED)
        if (
            self.last_ckpt is not None
            and self._saved_iter == runner.iter == validated
            and self._saved_validation != validated
        ):
            step = runner.epoch if self.by_epoch else runner.iter
            self._save_checkpoint_with_step(
                runner, step, dict(epoch=runner.epoch, iter=runner.iter)
            )
        super().after_train(runner)

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        path = publish(ckpt_path, self.published_keys, self.file_backend)
        runner.logger.info(f'The checkpoint ({ckpt_path}) is published to {path}.')
