"""Interpolation of position embeddings."""

import torch

from attnpool_backbones.layers.position_embedding import resize_position_embedding


def test_own_size_is_untouched():
    table = torch.randn(1, 3, 4, 5)
    assert resize_position_embedding(table, (4, 5)) is table


def test_other_sizes_are_interpolated_with_gradient():
    table = torch.linspace(0, 1, 6).view(1, 1, 1, 6).expand(1, 2, 6, 6).clone().requires_grad_()
    resized = resize_position_embedding(table, (9, 12))
    assert resized.shape == (1, 2, 9, 12)
    # Rises along a row and is equal in all rows, as the table.
    assert (resized[..., 1:] > resized[..., :-1]).all()
    torch.testing.assert_close(resized[:, :, 0], resized[:, :, -1])
    resized.sum().backward()
    assert (table.grad != 0).all()
