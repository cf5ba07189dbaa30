"""What a family's table (``tests/backbones/families/``) is made of; the generic tests run it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A backbone that has to keep the dense contract."""

    name: str
    """Shown as the test's id."""
    config: Mapping[str, Any]
    """``type`` (registered, without scope) and constructor arguments."""
    slow: bool = False
    """Too large for ``make test``; runs in ``make test-all``."""
    compiled: bool = False
    """One per family: ``torch.compile`` is compared with eager."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A fixture of ``tests/data`` and what computes its arrays."""

    file: str
    """Name without ``.npz``."""
    config: Mapping[str, Any]
    atol: float
    compare: Callable[[nn.Module, Mapping[str, np.ndarray], Tensor], Iterator[tuple]]
    """Called with the loaded model in eval mode, the fixture and its input; yields
    (what, computed tensor, expected array)."""
    slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model of ``tests/data/model_sizes.csv``."""

    model: str
    """The csv's ``model``; all its rows are checked."""
    input: str | None = None
    """The csv's ``input``, if only the rows of that input are meant."""
    config: Mapping[str, Any]
    head_params: int = 0
    """Parameters that a row of scope ``classifier_1000`` counts and the backbone does not have."""
    head_macs: float = 0.0
    """Likewise multiply-accumulates, in units of 1e9."""
    count_macs: Callable[[nn.Module, tuple[int, int]], float] | None = None
    """Counting rule: model and (H, W) -> 1e9 MACs. Default: convolutions and matrix products."""
    backbone_config: Mapping[str, Any] | None = None
    """What the rows of scope ``backbone`` are compared with. Default: ``config``."""
    slow: bool = False
