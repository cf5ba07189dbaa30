"""Whether a compiler will fuse what is computed now."""

import torch


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
