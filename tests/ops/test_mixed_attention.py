"""What the operator contract does not say of mixed attention."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnpool_backbones.ops.mixed_attention import map_covariance, mixed_attention


def inputs(batch, heads, queries, keys, width, dtype=torch.float32):
    """Returns q, k, v, matrix and offset; tokens before heads in memory, as a projection gives."""

    def tokens(number):
        return torch.randn(batch, number, heads, width, dtype=dtype).transpose(1, 2)

    tensors = [tokens(queries), tokens(keys), tokens(keys)]
    tensors += [torch.randn(heads, heads, dtype=dtype), torch.randn(heads, dtype=dtype)]
    return [t.requires_grad_() for t in tensors]


@pytest.mark.parametrize('score', [1e-3, -100.0, 100.0, 1e4])
def test_scores_of_any_size(score):
    q, k, v, matrix, _ = (t.detach() for t in inputs(1, 2, 6, 2000, 4))
    q, k = torch.full_like(q, score / 2), torch.ones_like(k)  # all scores of a row are alike
    expected = (matrix.sum(1).view(-1, 1, 1) * v.mean(2, keepdim=True)).expand_as(q)
    torch.testing.assert_close(mixed_attention(q, k, v, matrix), expected, rtol=1e-4, atol=1e-5)
    assert map_covariance(q, k).abs().max() < 1e-9


def test_many_small_images_share_a_chunk_and_give_the_same():
    tensors = inputs(5, 2, 6, 6, 3)
    torch.testing.assert_close(
        mixed_attention(*tensors), torch.cat([mixed_attention(*(t[i : i + 1] for t in tensors[:3]),
                                                              *tensors[3:]) for i in range(5)])
    )  # fmt: skip


def test_flops_are_counted():
    q, k, v, matrix, _ = (t.detach() for t in inputs(2, 3, 5, 7, 4))
    with FlopCounterMode(display=False) as counter:
        mixed_attention(q, k, v, matrix)
    assert counter.get_total_flops() == 2 * 2 * 3 * 5 * 7 * (4 + 3 + 4)
