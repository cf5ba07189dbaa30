"""Whether a compiler will fuse what is computed now."""

import torch

# PyTorch before 2.7 does not tell an export from a compilation
_is_exporting = getattr(torch.compiler, 'is_exporting', lambda: True)


def compiler_fuses() -> bool:
    """Tells whether ``torch.compile`` traces, which fuses passes over maps by itself.

    Not ``torch.export``: its graphs are for other runtimes.
    """
    return torch.compiler.is_compiling() and not _is_exporting()
