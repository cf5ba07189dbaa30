import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

# More threads than this slow the tiny models of the tests down.
torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def repo_root() -> Path:
    return Path(__file__).resolve().parent.parent
