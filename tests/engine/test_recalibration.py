import pytest
import torch

from attnpool_backbones.backbones import DeepViT
from attnpool_backbones.engine.recalibration import recalibrate_statistics
from tests.backbones.families.deepvit import SMALL


def build(**options):
    torch.manual_seed(0)
    return DeepViT(SMALL, stats_tokens='fixed', **options)


def buffers_of(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_statistics_are_those_of_the_images():
    model = build().eval()
    x = torch.randn(2, 3, 96, 64)
    assert recalibrate_statistics(model, [x, x]) == 4
    assert not any(module.training for module in model.modules())
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
    with torch.no_grad():
        calibrated = model(x)
        # In training mode the norms use the batch's own statistics.
        torch.testing.assert_close(calibrated, model.train()(x), rtol=1e-3, atol=1e-3)


def test_only_statistics_of_maps_change():
    model = build().train()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    before = buffers_of(model)
    recalibrate_statistics(model, (torch.randn(1, 3, 64, 64) for _ in range(3)))
    torch.testing.assert_close(dict(model.named_parameters()), weights)
    changed = {name for name, b in model.named_buffers() if not torch.equal(b, before[name])}
    names = ('running_mean', 'running_var', 'num_batches_tracked')
    assert changed == {f'blocks.{i}.attn.mixing.norm.{name}' for i in range(4) for name in names}
    assert all(module.training for module in model.modules())


def test_no_batches_change_nothing():
    model = build()
    before = buffers_of(model)
    with pytest.raises(ValueError, match='at least one batch'):
        recalibrate_statistics(model, [])
    torch.testing.assert_close(buffers_of(model), before)


def test_without_map_norms():
    assert recalibrate_statistics(build(map_norm=None), []) == 0
