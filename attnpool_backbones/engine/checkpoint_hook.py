"""mmengine's checkpoint hook, made safe against being killed at any moment."""

import hashlib
import os.path as osp
import pickle
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner, save_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from attnpool_backbones.engine.atomic_files import (
    ATOMIC_BACKEND,
    remove_stale_files,
    write_atomically,
)
from attnpool_backbones.registry import HOOKS


class PostponedRemovals:
    """A file backend that only notes what it is asked to remove.

    Args:
        backend (BaseStorageBackend): Does everything else, and the removals in the end.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.noted: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Notes a file."""
        self.noted[path] = self.backend.remove

    def rmtree(self, path: str) -> None:
        """Notes a folder."""
        self.noted[path] = self.backend.rmtree

    def carry_out(self, keep: set[str]) -> None:
        """Removes what was noted, except the paths in ``keep``, which were written anew since."""
        for path, remove in self.noted.items():
            if path not in keep:
                remove(path)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Saves checkpoints so that a killed run can always be resumed.

    Takes the arguments of :class:`mmengine.hooks.CheckpointHook` and keeps its file names, its
    ``save_best``, ``max_keep_ckpts`` and ``published_keys``. What differs:

    - local files, ``last_checkpoint`` included, are written whole or not at all;
    - an old checkpoint is deleted only when its successor is in place, so that with
      ``max_keep_ckpts=1`` there is always one;
    - unfinished files of a killed run are removed when training starts.
    """

    def before_train(self, runner: Runner) -> None:
        """Chooses where and how files are written, and cleans up after a killed run.

        Args:
            runner (Runner): The starting training.
        """
        out_dir = str(self.out_dir or runner.work_dir)
        if '://' not in out_dir and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend=ATOMIC_BACKEND)
        super().before_train(runner)
        if is_main_process():
            for folder in {str(self.out_dir), runner.work_dir}:
                for file in remove_stale_files(folder):
                    runner.logger.info(f'Removed the unfinished file {file} of a killed run.')

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and list(self.keep_ckpt_ids)[-1:] != [step]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
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
        if not is_main_process():
            return
        write_atomically(self.last_ckpt.encode(), osp.join(runner.work_dir, 'last_checkpoint'))
        if outdated is not None:
            path = self.file_backend.join_path(self.out_dir, outdated)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):
                # deepspeed's checkpoints are folders
                self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        # mmengine removes the previous best file before it writes the new one
        backend = self.file_backend
        self.file_backend = PostponedRemovals(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            postponed, self.file_backend = self.file_backend, backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        postponed.carry_out(keep={self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best})

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        checkpoint = CheckpointLoader.load_checkpoint(ckpt_path, map_location='cpu')
        published = {key: checkpoint[key] for key in self.published_keys if key in checkpoint}
        digest = hashlib.sha256(pickle.dumps(published)).hexdigest()[:8]
        path = f'{osp.splitext(ckpt_path)[0]}-{digest}.pth'
        save_checkpoint(published, path, backend_args=self.backend_args)
        runner.logger.info(
            f'The checkpoint ({ckpt_path}) is published to {path} with the keys {list(published)}.'
        )
