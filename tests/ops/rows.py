"""What the table of operators is made of; ``test_contract.py`` runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Draw:
    """Draws sizes and tensors from a seed.

    Args:
        seed: Equal seeds draw the same.
        tiny: Whether to draw the smallest sizes, for numerical gradients.
    """

    def __init__(self, seed: int, tiny: bool = False):
        self.generator = torch.Generator().manual_seed(seed)
        self.tiny = tiny

    def size(self, low: int, high: int) -> int:
        """Returns low..high; with ``tiny`` at most low + 1."""
        high = min(low + 1, high) if self.tiny else high
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def choice(self, values: Sequence[Any]) -> Any:
        """Returns one of the values."""
        return values[int(torch.randint(len(values), (), generator=self.generator))]

    def tensor(self, *shape: int, grad: bool = True) -> Tensor:
        """Returns normal values, float64, that want a gradient or not."""
        x = torch.randn(shape, dtype=torch.float64, generator=self.generator)
        return x.requires_grad_(grad)

    def positive(self, *shape: int, grad: bool = True) -> Tensor:
        """Returns uniform values from 0.5 to 1.5, float64."""
        x = torch.rand(shape, dtype=torch.float64, generator=self.generator) + 0.5
        return x.requires_grad_(grad)

    def module(self, module: nn.Module) -> nn.Module:
        """Returns the module in float64 with drawn parameters and running statistics."""
        with torch.no_grad():
            for name, t in module.double().state_dict().items():
                if t.is_floating_point():
                    t.copy_((self.positive if name == 'running_var' else self.tensor)(*t.shape))
        return module

    def map(self, channels: int, side: int = 9) -> Tensor:
        """Returns a map B, C, H, W with sides up to ``side``."""
        return self.tensor(self.size(1, 3), channels, self.size(1, side), self.size(1, side))


@dataclass(frozen=True, kw_only=True)
class Row:
    """An operator and example inputs."""

    operator: Callable
    example: Callable[[Draw], tuple]
    """Draws arguments: float64 tensors, modules in float64, numbers."""
    results: Callable[[Any], Any] = lambda outputs: outputs
    """What of the outputs is compared."""
    name: str = ''
    """Shown as the test's id. Default: the operator's."""
    batched: tuple[int, ...] = (0,)
    """Positions of arguments whose first axis is that of the images."""
    overwrites: tuple[int, ...] = ()
    """Positions of arguments that may be overwritten where no gradients are wanted."""
    differentiable: bool = True
    """False: neither gradients nor numerical derivatives are compared."""
    layouts: bool = True
    """False: the operator says that it takes contiguous tensors only."""
    bfloat16: bool = True
    """False: the operator says that it takes no bfloat16."""
    dynamic_since: str = '2.6'
    """The first PyTorch that compiles it for sizes that change."""

    @property
    def id(self) -> str:
        return self.name or self.operator.__name__
