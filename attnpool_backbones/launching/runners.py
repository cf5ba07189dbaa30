"""mmengine's runners, which keep off the screen what only their log file is for.

They note that a run has started, too, and write its config whole or not at all.
"""

import logging
import os
from typing import Any

from mmengine.dist import master_only
from mmengine.runner import FlexibleRunner, Runner

from attnpool_backbones.atomic_files import write_atomically

__all__ = ['NotesStart', 'QuietFlexibleRunner', 'QuietRunner', 'QuietTester']

FOR_THE_FILE = (
    '-' * 60 + '\nSystem environment:',
    'Config:',
    'Hooks will be executed in the following order',
    'paramwise_options',
    'LR is set based on',
    'Using env variable',
)
"""How the messages begin that nobody reads while a run starts: hundreds of lines."""

FIRST_CALLS = ('before_train_iter', 'before_val_iter', 'before_test_iter')
"""What an iteration begins with."""


class ScreenFilter(logging.Filter):
    """Lets through what a user needs: no surveys, but every warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO:
            return True
        return not str(record.msg).lstrip('\n').startswith(FOR_THE_FILE)


def quiet(logger: Any) -> Any:
    """Adds the filter to what a logger writes to the screen with, and returns it."""
    for handler in logger.handlers:
        is_screen = not isinstance(handler, logging.FileHandler)
        if is_screen and not any(isinstance(f, ScreenFilter) for f in handler.filters):
            handler.addFilter(ScreenFilter())
    return logger


class NotesStart:
    """Part of a runner of mmengine.

    Attributes:
        has_started: Whether an iteration, of a validation too, was begun.
    """

    has_started = False

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls all hooks as mmengine does."""
        if fn_name in FIRST_CALLS:
            self.has_started = True
        super().call_hook(fn_name, **kwargs)


class WholeConfig:
    """Part of a runner of mmengine, which would leave half a config on a full disk."""

    @master_only
    def dump_config(self) -> None:
        """Writes the config into the work folder."""
        self.dump_config_to(self.work_dir)

    def dump_config_to(self, folder: str) -> None:
        """Writes the config into a folder, under its own name."""
        name = os.path.basename(self.cfg.filename or f'{self.timestamp}.py')
        write_atomically(self.cfg.dump().encode(), os.path.join(folder, name))


class QuietRunner(WholeConfig, NotesStart, Runner):
    """mmengine's Runner; config, environment and list of hooks go to the log file alone."""

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """Builds mmengine's logger, with a screen of its own."""
        return quiet(super().build_logger(*args, **kwargs))


class QuietTester(QuietRunner):
    """The same for tests, whose config does not take the place of that of the run."""

    @master_only
    def dump_config(self) -> None:
        """Writes the config beside the log; the work folder may be that of the training."""
        self.dump_config_to(self.log_dir)


class QuietFlexibleRunner(WholeConfig, NotesStart, FlexibleRunner):
    """The same for runs that a strategy trains."""

    def _log_env(self) -> None:
        quiet(self.logger)
        super()._log_env()
