"""What a run costs a GPU beside its time: the seconds of its kernels, and memory.

Kernels that take less time than the processor takes to start them leave the GPU idle in between: a
faster processor, a larger batch or a recorded graph brings the time of a run down to that of its
kernels.
"""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def gpu_costs(run: Callable[[], None], clear: Callable[[], None]) -> dict[str, float]:
    """Runs twice on a GPU.

    Args:
        run: A forward pass or a training step; it waits for its end.
        clear: Forgets the gradients of the last step.

    Returns:
        ``kernel_seconds``, the sum over all kernels and copies, and ``taken_bytes``, the most
        memory that the run took beside what was there before.
    """
    clear()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    taken = torch.cuda.max_memory_allocated() - before
    clear()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        run()
    microseconds = sum(event.self_device_time_total for event in recorded.key_averages())
    return dict(kernel_seconds=microseconds / 1e6, taken_bytes=taken)
