"""What a machine can do at best: multiply matrices and copy memory."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from attnpool_backbones.machine import processor_name
from attnpool_backbones.ops.product import pointwise

SIDE = {'cpu': 2048, 'cuda': 8192}
"""Side of the square matrices that are multiplied, on each type of device."""
COPIED_BYTES = {'cpu': 1 << 28, 'cuda': 1 << 30}
"""Size of the block that is copied: more than any cache holds."""


class MachineRates:
    """Measures the rates again and again, in between what they are compared with.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
        dtypes: Names of torch's types in which matrices will be multiplied.
    """

    def __init__(self, device: str, dtypes: Iterable[str] = ('float32',)):
        self.device = device
        shape = 3, SIDE[device], SIDE[device]  # two factors and their product
        self.matrices = {
            dtype: torch.randn(shape, device=device).to(getattr(torch, dtype)) for dtype in dtypes
        }
        self.source = torch.ones(COPIED_BYTES[device] // 4, device=device)
        self.target = torch.zeros_like(self.source)

    def matrix_rate(self, dtype: str = 'float32') -> float:
        """Multiplies once by each library; returns the best rate.

        On a CPU PyTorch gives products to its BLAS library and convolutions to oneDNN, and which
        of them is faster depends on the processor.

        Args:
            dtype: Of the matrices, one of those of the constructor.

        Returns:
            Floating-point operations (2 a multiply-add) per second.
        """
        a, b, product = self.matrices[dtype]
        seconds = self._seconds(lambda: torch.mm(a, b, out=product))
        if self.device == 'cpu':
            pixels = a[None, None].permute(0, 3, 1, 2)  # 1, C, 1, P: a row of pixels
            kernel = b[:, :, None, None]  # C', C, 1, 1
            seconds = min(seconds, self._seconds(lambda: pointwise(pixels, kernel)))
        return 2 * SIDE[self.device] ** 3 / seconds

    def copy_rate(self) -> float:
        """Copies once; returns bytes read and written per second."""
        seconds = self._seconds(lambda: self.target.copy_(self.source))
        return 2 * COPIED_BYTES[self.device] / seconds

    def _seconds(self, function: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        function()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()


def has_bfloat16_instructions(device: str) -> bool:
    """Tells whether a device multiplies bfloat16 natively; without, it is only emulated."""
    if device == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def describe_machine(device: str) -> dict[str, str | int | bool]:
    """Returns what measured times depend on, for the report and to keep machines apart."""
    if device == 'cuda':
        processor = torch.cuda.get_device_name()
    else:
        processor = processor_name()
    preloaded = os.environ.get('LD_PRELOAD', '')
    allocator = {'preloaded': Path(preloaded).name} if preloaded and device == 'cpu' else {}
    return allocator | dict(
        device=device,
        processor=processor,
        instructions=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        bfloat16_instructions=has_bfloat16_instructions(device),
        torch=torch.__version__,
    )
