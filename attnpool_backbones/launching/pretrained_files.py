"""Weights that a model starts from, looked for on disk before anything is built."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.config_types import config_entries, is_pretrained

__all__ = ['pretrained_files', 'require_pretrained']


def pretrained_files(model: Any) -> Iterator[str]:
    """Yields the local checkpoint files that ``init_cfg`` entries of a model config name."""
    for _, entry in config_entries(model):
        checkpoint = entry.get('checkpoint')
        if is_pretrained(entry) and isinstance(checkpoint, str) and '://' not in checkpoint:
            yield checkpoint


def require_pretrained(cfg: Config) -> None:
    """Checks that the weights that a model starts from exist.

    Args:
        cfg: The whole config.

    Raises:
        UserError: Listing every file that an ``init_cfg`` names in vain, and for a config of
            this package the page that tells where such files come from.
    """
    absent = [file for file in pretrained_files(cfg.get('model')) if not os.path.isfile(file)]
    if absent:
        folder = Path(cfg.filename or '').resolve().parent
        page = folder / 'README.md'
        is_ours = folder.parent == config_root().resolve() and page.is_file()
        raise UserError(
            '\n'.join(
                [
                    'checkpoints that init_cfg names are not there; download or train them, or '
                    'change init_cfg:',
                    *(f'  {os.path.abspath(file)}' for file in dict.fromkeys(absent)),
                    *([f'Where they come from: {page}, section Weights'] if is_ours else []),
                ]
            )
        )
