"""Reading a config: found or suggested, parsed or explained, with the options of a command line."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.compatibility import IncompatibleEnvironment, check_environment
from attnpool_backbones.config_files import config_root
from attnpool_backbones.config_tasks import NEEDS, recognise_task

__all__ = ['apply_options', 'find_config', 'load_config']


def load_config(
    path: str,
    cfg_options: dict[str, Any] | None = None,
    work_dir: str | None = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config and applies the flags that training and testing share.

    Args:
        path: The config file.
        cfg_options: Settings to override, by dotted key. Default: None.
        work_dir: Folder for everything that is written. Default: the config's own, or else
            ``work_dirs/CONFIG_NAME``.
        launcher: How the processes were started. Default: ``'none'``.

    Returns:
        The whole config.

    Raises:
        UserError: If the config or one of its bases is missing or malformed, or an option does
            not fit it.
        IncompatibleEnvironment: If the library the config is written for is missing or unusable.
    """
    file = find_config(path)
    try:
        cfg = Config.fromfile(file)
    except (UserError, IncompatibleEnvironment):
        raise
    except Exception as error:  # a config is a program: anything may go wrong in it
        cause = f'{type(error).__name__}: {error}'.removesuffix(': ')
        raise UserError(f'config {file} cannot be read: {cause}{unknown_base(file)}') from error
    apply_options(cfg, cfg_options, str(file))
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', file.stem)
    check_environment(NEEDS[recognise_task(cfg)])
    return cfg


def apply_options(cfg: Config, cfg_options: dict[str, Any] | None, name: str) -> None:
    """Overrides settings of a config.

    Args:
        cfg: Changed in-place.
        cfg_options: Settings by dotted key, or None.
        name: Of the config, for the message.

    Raises:
        UserError: If an option does not fit it.
    """
    try:
        cfg.merge_from_dict(cfg_options or {})
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'--cfg-options do not fit {name}: {error}') from error


def find_config(path: str) -> Path:
    """Returns the config file ``path``, or names the ones that were perhaps meant.

    Args:
        path: As typed.

    Returns:
        The existing file.

    Raises:
        UserError: If there is no such file.
    """
    config = Path(path)
    if config.is_file():
        return config
    known = {
        file.name: file
        for file in sorted(config_root().rglob('*.py'))
        if '_base_' not in file.parts
    }
    close = difflib.get_close_matches(config.name, known, n=3, cutoff=0.5)
    lines = [f'config not found: {config.absolute()}']
    if close:
        lines.append('Did you mean:')
        lines.extend(f'  {os.path.relpath(known[name])}' for name in close)
    raise UserError('\n'.join(lines))


def unknown_base(file: Path) -> str:
    """Words what bases of other packages a config that cannot be read asks for.

    mmengine answers a misspelt or missing one of them with a bare assertion.

    Args:
        file: The config.

    Returns:
        To be added to the message; empty if it asks for none.
    """
    bases = re.findall(r'[\'"](\w+::[^\'"]*)[\'"]', file.read_text(errors='replace'))
    if not bases:
        return ''
    return (
        f' (it asks for {", ".join(bases)}: PACKAGE::PATH is a config that is installed with a '
        'package of OpenMMLab, mmdet or mmseg; others are named by their path; those of '
        f'attnpool_backbones are in {config_root()})'
    )
