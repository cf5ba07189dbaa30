import errno
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from attnpool_backbones.machine import usable_cores
from attnpool_backbones.stop_signals import STOP_SIGNALS, heeded_signals

# More threads than this slow the tiny models of the tests down; beside other processes, one.
torch.set_num_threads(1 if 'PYTEST_XDIST_WORKER' in os.environ else min(2, usable_cores()))

# Tests send signals which a process ignores that nohup or a script has started, and its children.
for number in set(STOP_SIGNALS) - set(heeded_signals()):
    is_interrupt = number == signal.SIGINT
    signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def default_scopes_restored():
    kept = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(kept)


@pytest.fixture(autouse=True, scope='module')
def no_default_scope_of_fixtures():
    """No file of tests meets the default scope of a runner that a fixture of another one built."""
    yield from default_scopes_restored()


@pytest.fixture(autouse=True)
def no_default_scope():
    """No test meets the default scope that a runner of an earlier test left in the process."""
    yield from default_scopes_restored()


@pytest.fixture
def close_folders(monkeypatch):
    """Makes folders of a name unreadable."""
    list_folder = os.scandir

    def close(name):
        def refuse(path):
            # no rights stop the superuser; a path may be the number of an open one
            if Path(str(path)).name == name:
                raise PermissionError(errno.EACCES, 'Permission denied', str(path))
            return list_folder(path)

        monkeypatch.setattr(os, 'scandir', refuse)

    return close


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    from attnpool_backbones.datasets.digit_scenes import generate

    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=8, val=4)
    return root


@pytest.fixture(scope='session')
def repo_root():
    return Path(__file__).resolve().parent.parent
