"""How many bytes the operations of a computation read and write."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for tensor in tree_leaves((args, kwargs, result)):
                if isinstance(tensor, torch.Tensor):
                    self.bytes += tensor.numel() * tensor.element_size()
        return result


def count_traffic(function: Callable[[], object]) -> int:
    """Returns the bytes of the inputs and outputs of all operations in ``function()``.

    Each operation counts as if it read its inputs and wrote its output once; what stays in caches
    counts too, and what an operation does inside (the chunked attentions) does not.
    """
    with _Counter() as counter:
        function()
    return counter.bytes
