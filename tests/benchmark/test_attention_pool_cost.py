"""Models whose pools are exchanged in turns."""

import pytest
import torch
from torch import nn

from attnpool_backbones.benchmark.attention_pool_cost import exchanged
from attnpool_backbones.layers.attention_pool import AttentionPool2d
from attnpool_backbones.layers.squeeze_excite import SE


@pytest.mark.parametrize(
    ('average', 'attention', 'names'),
    [
        (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(8, 8, 1)),
         nn.Sequential(AttentionPool2d(8, 2), nn.Conv2d(8, 8, 1)), {'0'}),
        (nn.Sequential(nn.Sequential(SE(16))), nn.Sequential(nn.Sequential(SE(16, pool_heads=2))),
         {'0.0'}),
    ],
    ids=['bins', 'units'],
)  # fmt: skip
def test_exchanged_parts_make_one_form_the_other(average, attention, names):
    parts = exchanged(average, attention)
    assert parts.keys() == names
    attention.load_state_dict(average.state_dict())  # a query of 0 is the average
    x = torch.randn(2, 16 if '0.0' in names else 8, 6, 6)
    with torch.no_grad():
        expected = average(x)
        for name, (_, other) in parts.items():
            average.set_submodule(name, other)
        torch.testing.assert_close(average(x), expected)
    assert any(isinstance(part, AttentionPool2d) for part in average.modules())
