"""Attention pooling in place of average pooling."""

import copy
import re

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from torch import nn
from torch.nn import functional

from attnpool_backbones.backbones import AttnResNet
from attnpool_backbones.checkpoints import load_pretrained
from attnpool_backbones.layers.attention_pool import AttentionPool2d, replace_average_pools
from attnpool_backbones.layers.attention_units import POOLING_UNITS
from attnpool_backbones.layers.global_context import GC
from attnpool_backbones.layers.squeeze_excite import SE
from attnpool_backbones.ops.formula import formulas
from attnpool_backbones.registry import MODELS


@pytest.mark.parametrize('bins', [1, 2, 3, 6, (2, 5)])
@pytest.mark.parametrize('size', [(6, 6), (7, 10), (4, 5), (1, 1)])
def test_starts_as_the_average(bins, size):
    x = torch.randn(2, 8, *size)
    expected = functional.adaptive_avg_pool2d(x, bins)
    torch.testing.assert_close(AttentionPool2d(8, bins, heads=2)(x), expected)


def test_heads_look_where_their_query_points():
    pool, x = AttentionPool2d(4, heads=2), torch.zeros(1, 4, 3, 3)
    x[0, 0, 1, 2] = x[0, 3, 2, 0] = 100
    x[0, 1] = torch.arange(9.0).view(3, 3)
    with torch.no_grad():
        pool.query[0, 0] = 10  # the first head, of channels 0 and 1, seeks channel 0
    pooled = pool(x).detach().flatten()
    assert pooled[1] == 5  # where channel 0 is large
    assert pooled[3] == pytest.approx(100 / 9)  # the other one is an average


def test_scores_do_not_overflow():
    pool = AttentionPool2d(2, bins=2)
    nn.init.constant_(pool.query, 1e4)
    x = (1e4 * torch.randn(1, 2, 5, 5)).requires_grad_()
    pool(x).sum().backward()
    assert x.grad.isfinite().all() and pool.query.grad.isfinite().all()


def test_weights_of_an_average_load():
    average = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 3, 1))
    attending = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 3, 1))
    assert replace_average_pools(attending) == 1
    nn.init.normal_(attending[0].query)
    attending.load_state_dict(average.state_dict())
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(attending(x), average(x))
    assert not replace_average_pools(attending)


def test_weights_of_an_average_load_into_a_model_on_meta():
    file = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 3, 1)).state_dict()
    with torch.device('meta'):
        sequence = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(4, 3, 1))
        replace_average_pools(sequence)
        alone = AttentionPool2d(4)
    sequence.load_state_dict(file, assign=True)
    assert not sequence[0].query.is_meta and not sequence[0].query.any()
    with pytest.raises(RuntimeError, match='(?s)Missing key.*query'):
        alone.load_state_dict({}, assign=True)


class _Pooled(nn.Module):
    def __init__(self, *pooled):
        super().__init__()
        self.backbone, self.pooled = nn.Conv2d(3, 16, 1), nn.Sequential(*pooled)
        self.pool = AttentionPool2d(16)
        replace_average_pools(self)
        for module in self.modules():
            if isinstance(module, AttentionPool2d):
                nn.init.normal_(module.query)


_UNITS = {
    'se': lambda: SE(16, pool_heads=2),
    'gc': lambda: GC(16, pool_heads=2),
    'sequence': lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(16, 3, 1)),
}


@pytest.mark.parametrize('unit', _UNITS.values(), ids=_UNITS)
@pytest.mark.parametrize(
    ('held', 'average'),
    [
        ('', False),
        ('backbone', False),
        (r'.*\.weight', False),  # a part of the unit, e.g. of an adapter
        (r'.*(?<!query)', True),
    ],
)
@pytest.mark.parametrize('load', [nn.Module.load_state_dict, load_state_dict])
def test_files_without_queries(unit, held, average, load):
    model = copy.deepcopy(_Pooled(unit()))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    file = {k: v + 1 for k, v in before.items() if held and re.match(rf'{held}(\..*)?$', k)}
    load(model, file, strict=False)
    for name, value in model.state_dict().items():
        if name in file:
            assert value.equal(file[name]), name
        elif average and name.startswith('pooled'):
            assert not value.any(), name  # the file's unit takes the average
        else:
            assert value.equal(before[name]), name


@pytest.mark.parametrize(
    ('base', 'options', 'pools'),
    [
        ('UPerHead', dict(in_channels=[8, 16], in_index=[0, 1]), 4),
        ('PSPHead', dict(in_channels=16, in_index=1), 4),
        ('ASPPHead', dict(in_channels=16, in_index=1), 1),
    ],
)
def test_heads_of_mmseg(base, options, pools):
    pytest.importorskip('mmseg')
    options = dict(channels=8, num_classes=5, **options)
    maps = [torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8)]
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(1)
        plain = MODELS.build(dict(type=base, **options)).eval()
        torch.manual_seed(1)
        head = MODELS.build(
            dict(type='attnpool_backbones.WithAttentionPools', base=base, pool_heads=2, **options)
        ).eval()
        with pytest.raises(ValueError, match='has no average pooling'):
            MODELS.build(
                dict(type='attnpool_backbones.WithAttentionPools', base='FCNHead', in_channels=16,
                     channels=8, num_classes=5)
            )  # fmt: skip
    assert sum(isinstance(m, AttentionPool2d) for m in head.modules()) == pools
    torch.testing.assert_close(head(maps), plain(maps), atol=1e-5, rtol=1e-4)
    head(maps).square().sum().backward()
    queries = [p for name, p in head.named_parameters() if name.endswith('query')]
    assert len(queries) == pools and all(q.grad.any() for q in queries)


def test_squeeze_and_excitation_attends():
    torch.manual_seed(0)
    plain = SE(32)
    attending = SE(32, pool_heads=4)
    attending.load_state_dict(plain.state_dict())
    x = torch.randn(2, 32, 5, 4)
    torch.testing.assert_close(attending(x), plain(x))
    nn.init.normal_(attending.pool.query)
    assert not torch.allclose(attending(x), plain(x))
    attending.init_weights()
    assert not attending.pool.query.any()


def test_global_context_attends_in_heads():
    gc, x = GC(32, pool_heads=4), torch.randn(2, 32, 5, 4)
    nn.init.normal_(gc.channel_add_conv[-1].weight)
    context = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(gc(x), x + gc.channel_add_conv(context))  # starts as the average
    nn.init.normal_(gc.pool.query, std=5)
    assert not torch.allclose(gc(x), x + gc.channel_add_conv(context))
    gate = gc.gate(x)
    assert gate.shape == (2, 4, 5, 4)
    torch.testing.assert_close(gate.sum((2, 3)), torch.ones(2, 4))
    pooled = (x.unflatten(1, (4, 8)) * gate[:, :, None]).sum((3, 4)).flatten(1)[..., None, None]
    torch.testing.assert_close(gc(x), x + gc.channel_add_conv(pooled))
    gc.init_weights()
    assert not gc.pool.query.any()


@pytest.mark.parametrize('unit', POOLING_UNITS)
def test_units_of_a_resnet_by_config(unit, tmp_path):
    arch = f'{unit}_resnet_nano'
    plain = AttnResNet(arch).eval()
    attending = AttnResNet(f'{arch}_attnpool').eval()
    pools = [m for m in attending.modules() if isinstance(m, AttentionPool2d)]
    assert len(pools) == sum(attending.arch.depths) and {len(p.query) for p in pools} == {4}
    if unit == 'se':  # it was an average, so its weights load and give the same maps
        torch.save(plain.state_dict(), tmp_path / 'published.pth')
        report = load_pretrained(attending, tmp_path / 'published.pth', logger=None)
        assert report.clean and len(report.fresh) == len(pools)
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(attending(x), plain(x))
    with pytest.raises(ValueError, match="pool_heads=2 of AttnResNet needs .* se, gc, not 'sge'"):
        AttnResNet(dict(base='nano', pool_heads=2))


def test_uneven_heads_are_refused():
    with pytest.raises(ValueError, match='6 channels cannot be shared among heads=4'):
        AttentionPool2d(6, heads=4)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('shortcut', [False, True])
def test_gradients_of_a_gate_join_in_place(layout, shortcut):
    """Gated map, shortcut, and what else is computed from the same map."""
    torch.manual_seed(0)
    unit = SE(32, pool_heads=4).double()
    nn.init.normal_(unit.pool.query)
    given = torch.randn(2, 32, 5, 4, dtype=torch.float64).contiguous(memory_format=layout)
    wanted = []
    for formulas_wanted in (True, False):
        unit.zero_grad()
        x, rest = (given.clone().requires_grad_() for _ in range(2))
        with formulas(formulas_wanted):
            y = 3 * x
            loss = unit(y, rest).sin().sum() if shortcut else unit(y).sin().sum()
            (loss + (y + rest).cos().sum()).backward()
        wanted.append([x.grad, rest.grad, *(p.grad for p in unit.parameters())])
    for expected, computed in zip(*wanted, strict=True):
        torch.testing.assert_close(computed, expected)


def test_only_one_bin_gates():
    with pytest.raises(ValueError, match=r'one bin, not bins=\(2, 2\)'):
        AttentionPool2d(4, bins=2)(torch.zeros(1, 4, 3, 3), with_map=True)
