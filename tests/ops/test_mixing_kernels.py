"""The kernels that mix maps on a GPU give what the formula gives.

Triton interprets them on a CPU, in a process of its own: it decides that when it is imported.
"""

import contextlib
import functools
import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

needs_triton = pytest.mark.skipif(not importlib.util.find_spec('triton'), reason='needs Triton')
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


class Case(NamedTuple):
    images: int
    heads: int
    queries: int
    keys: int
    dtype: str
    eps: float | None
    offset: bool
    chunk_rows: int


MIXINGS = list(itertools.product((None, 1e-3), (False, True)))
CASES = [
    *(Case(2, 3, 5, 13, 'float32', *mixing, 2) for mixing in MIXINGS),
    *(Case(1, 12, 3, 269, 'bfloat16', *mixing, 0) for mixing in MIXINGS),
    Case(1, 16, 2, 160, 'float32', 1e-3, True, 0),
    Case(2, 1, 2, 1, 'float32', None, True, 0),
    Case(1, 20, 2, 77, 'float16', None, True, 1),
    Case(1, 32, 2, 64, 'float32', None, False, 1),
]
"""More than one block of keys, a part of one, and one; heads that fill a block and that do not."""
ALLOWED = dict(float32=1e-5, bfloat16=0.02, float16=3e-3)
"""Errors of results and gradients over the largest value, or over 1."""
ALLOWED_OF_COVARIANCE = dict(float32=1e-4, bfloat16=0.03, float16=0.01)
each_case = pytest.mark.parametrize('case', CASES, ids=lambda case: '-'.join(map(str, case)))


def errors(case: Case, device: str) -> dict[str, float]:
    """Returns the errors of result and gradients by name, NaN where there is one."""
    mixed_attention = importlib.import_module('attnpool_backbones.ops.mixed_attention')
    dtype, generator = getattr(torch, case.dtype), torch.Generator().manual_seed(5)

    def draw(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()

    sizes = dict(q=case.queries, k=case.keys, v=case.keys)
    given = {name: draw(case.images, n, case.heads, 8).transpose(1, 2) for name, n in sizes.items()}
    given['matrix'] = draw(case.heads, case.heads, dtype=torch.float32)
    if case.offset:
        given['offset'] = draw(case.heads, dtype=torch.float32)

    def run(function, tensors, **options):
        out = function(**tensors, eps=case.eps, **options)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(6)).to(dtype)
        grads = torch.autograd.grad(out, list(tensors.values()), weight.to(device, out.dtype))
        return dict(zip(['out', *tensors], [out, *grads], strict=True))

    operator = mixed_attention.mixed_attention
    exact = {name: t.detach().double().requires_grad_() for name, t in given.items()}
    expected = run(operator.formula, exact)
    computed = run(operator, given, chunk_rows=case.chunk_rows)
    return {
        name: ((t.double() - right).abs().max() / right.abs().max().clamp_min(1)).item()
        for name, t in computed.items()
        for right in [expected[name]]
    }


def covariance_errors(case: Case, device: str) -> dict[str, float]:
    """Returns those of the covariance of the maps, over the largest value, however small."""
    map_covariance = importlib.import_module(
        'attnpool_backbones.ops.mixed_attention'
    ).map_covariance
    dtype, generator = getattr(torch, case.dtype), torch.Generator().manual_seed(7)
    sizes = [(case.images, n, case.heads, 8) for n in (case.queries, case.keys)]
    given = [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]

    def run(function, dtype, **options):
        q, k = (t.transpose(1, 2).to(dtype).requires_grad_() for t in given)
        out = function(q, k, **options)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(8))
        return [out, *torch.autograd.grad(out, [q, k], weight.to(device, out.dtype))]

    expected = run(map_covariance.formula, torch.float64)
    computed = run(map_covariance, dtype, chunk_rows=case.chunk_rows)
    return {
        name: ((t.double() - right).abs().max() / right.abs().max().clamp_min(1e-6)).item()
        for name, t, right in zip(('out', 'q', 'k'), computed, expected, strict=True)
    }


def beyond_the_keys(device: str) -> list[float]:
    """Returns a map of five equal scores and its gradient, with NaN beyond in the scores."""
    kernels = importlib.import_module('attnpool_backbones.ops.mixing_kernels')
    scores = torch.full((1, 3, 2, 16), torch.nan, device=device)
    scores[..., :5] = 0.5
    grad, mixed, matrix = torch.zeros_like(scores), scores.clone(), torch.eye(3, device=device)
    grad[..., 0] = 1
    kernels.mix_rows_backward(scores.clone(), grad, mixed, matrix, None, None, 5)
    maps = kernels.mix_rows(scores, matrix, None, None, 5)
    assert torch.equal(maps[..., :5], mixed[..., :5])
    return [*maps[0, 1, 1, :5].tolist(), *grad[0, 2, 1].tolist()]


def check_beyond(found: list[float]) -> None:
    assert found == pytest.approx([0.2] * 5 + [0.16] + [-0.04] * 4 + [0] * 11)


def check(found: dict[str, float], case: Case) -> None:
    assert found.keys() >= {'out', 'q', 'k', 'v', 'matrix'}
    assert all(error <= ALLOWED[case.dtype] for error in found.values()), found


@pytest.fixture(scope='module')
def interpreted() -> Iterator[dict]:
    """Runs this file with Triton's interpreter."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    environment = os.environ | dict(TRITON_INTERPRET='1', PYTHONPATH=path)
    command = [sys.executable, __file__]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert not process.returncode, process.stderr
    return json.loads(process.stdout)


@needs_triton
@each_case
def test_interpreted(interpreted, case):
    found = dict(interpreted['errors'][CASES.index(case)])
    assert found.pop('launches') >= 2, 'the kernels did not run'
    check(found, case)


@needs_triton
@each_case
def test_covariance_interpreted(interpreted, case):
    found = dict(interpreted['covariances'][CASES.index(case)])
    assert found.pop('launches') >= 2, 'the kernels did not run'
    assert all(error <= ALLOWED_OF_COVARIANCE[case.dtype] for error in found.values()), found


@needs_triton
def test_interpreted_counts_nothing_beyond_the_keys(interpreted):
    check_beyond(interpreted['beyond'])


@needs_triton
@needs_gpu
@each_case
def test_on_a_gpu(case):
    mixed_attention = importlib.import_module('attnpool_backbones.ops.mixed_attention')
    assert mixed_attention._fused_kernels(torch.empty(1, case.heads, 1, 1, device='cuda'))
    check(errors(case, 'cuda'), case)


@needs_triton
@needs_gpu
@each_case
def test_covariance_on_a_gpu(case):
    found = covariance_errors(case, 'cuda')
    assert all(error <= ALLOWED_OF_COVARIANCE[case.dtype] for error in found.values()), found


@needs_triton
@needs_gpu
def test_on_a_gpu_counts_nothing_beyond_the_keys():
    check_beyond(beyond_the_keys('cuda'))


@needs_triton
@needs_gpu
def test_on_a_gpu_repeats_its_bits():
    tensors = [torch.randn(1, 12, 300, 16, device='cuda').requires_grad_() for _ in range(3)]
    tensors.append(torch.randn(12, 12, device='cuda').requires_grad_())
    operator = importlib.import_module('attnpool_backbones.ops.mixed_attention').mixed_attention
    first, second = (torch.autograd.grad(operator(*tensors).sum(), tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_triton
def test_without_a_compiler_says_so_once(monkeypatch):
    kernels = importlib.import_module('attnpool_backbones.ops.mixing_kernels')
    launched = []

    class Broken:
        def __getitem__(self, grid):
            launched.append(grid)
            raise RuntimeError('Failed to find C compiler')

    monkeypatch.setattr(kernels, '_write_one', Broken())
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, 'device', lambda device: contextlib.nullcontext())
    kernels.compiles.cache_clear()
    try:
        with pytest.warns(UserWarning, match='without its fused kernels.*'):
            assert not kernels.compiles(torch.device('cuda', 0))
        assert not kernels.compiles(torch.device('cuda', 0))
        assert len(launched) == 1
    finally:
        kernels.compiles.cache_clear()


def main() -> None:
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        """Gives loops whole numbers, for which Triton 3.6 asks NumPy as 2.4 no longer answers."""
        patch(tensor, scope)
        scope.set_attr(tensor, '__index__', lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched
    mixed_attention = importlib.import_module('attnpool_backbones.ops.mixed_attention')
    kernels = importlib.import_module('attnpool_backbones.ops.mixing_kernels')
    launches = []

    def counted(function):
        @functools.wraps(function)
        def call(*args):
            launches.append(function)
            return function(*args)

        return call

    for name in ('mix_rows', 'map_products'):
        for way in (name, f'{name}_backward'):
            setattr(kernels, way, counted(getattr(kernels, way)))
    mixed_attention._fused_kernels = lambda q: kernels if q.dtype != torch.float64 else None

    def all_cases(function):
        for case in CASES:
            launches.clear()
            yield function(case, 'cpu') | dict(launches=len(launches))

    found = dict(errors=list(all_cases(errors)), covariances=list(all_cases(covariance_errors)))
    print(json.dumps(found | dict(beyond=beyond_the_keys('cpu'))))


if __name__ == '__main__':
    main()
