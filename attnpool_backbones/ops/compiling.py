"""Whether a compiler will fuse what is computed now, and for which sizes."""

import torch
from torch.fx.experimental import symbolic_shapes


# The compiler of some versions answers PyTorch's own question with yes, whatever it compiles for.
@torch.compiler.assume_constant_result
def _is_exporting() -> bool:
    # PyTorch before 2.7 does not tell an export from a compilation
    return getattr(torch.compiler, 'is_exporting', lambda: True)()


def compiler_fuses() -> bool:
    """Tells whether ``torch.compile`` traces, which fuses passes over maps by itself.

    Not ``torch.export``: its graphs are for other runtimes.
    """
    return torch.compiler.is_compiling() and not _is_exporting()


def is_recorded() -> bool:
    """Tells whether a graph is recorded, by the compiler, an export or ``torch.jit.trace``.

    A ``torch.autograd.Function`` has no place in it.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


# A size that an older PyTorch does not tell counts as one of many
is_static = getattr(symbolic_shapes, 'has_static_value', lambda size: False)
"""Tells whether a size in a compiled graph is a number, and does not stand for any size."""
