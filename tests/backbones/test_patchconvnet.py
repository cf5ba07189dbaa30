"""What only PatchConvNet has."""

import copy

import pytest
import torch
from torch import nn

from attnpool_backbones.backbones import PatchConvNet
from attnpool_backbones.checkpoints import load_pretrained
from tests.backbones.deploying import assert_deploys_to_the_same

SMALL = dict(width=16, depth=6)


@pytest.mark.parametrize(
    ('depth', 'taps'),
    [(60, (19, 29, 39, 59)), (120, (39, 59, 79, 119)), (12, (3, 5, 7, 11)), (24, (7, 11, 15, 23))],
)
def test_taps_at_thirds_and_half(depth, taps):
    assert PatchConvNet(arch=dict(width=16, depth=depth)).out_indices == taps


@pytest.mark.parametrize(
    ('schedule', 'rates'),
    [('constant', [0.2] * 6), ('linear', [0.0, 0.04, 0.08, 0.12, 0.16, 0.2])],
)
def test_drop_path_rates(schedule, rates):
    model = PatchConvNet(arch=SMALL, drop_path_rate=0.2, drop_path_schedule=schedule)
    assert [block.drop_path.drop_prob for block in model.blocks] == pytest.approx(rates)


@pytest.mark.parametrize(
    ('arch', 'init'), [('s60', 1e-4), ('s60_multi', 1e-4), ('s120', 1e-6), ('l60', 1e-6)]
)
def test_layer_scale_init(arch, init):
    model = PatchConvNet(arch=arch, out_indices=0)
    torch.testing.assert_close(model.blocks[0].gamma.detach(), torch.full_like(
        model.blocks[0].gamma, init))  # fmt: skip
    assert model.blocks[0].norm.eps == 1e-6


def test_pooling_is_off_by_default():
    dense, pooled = PatchConvNet(arch=SMALL), PatchConvNet(arch=SMALL, pooling=True)
    extra = set(dict(pooled.named_parameters())) - set(dict(dense.named_parameters()))
    assert extra and all(name.startswith(('pool.', 'pool_norm.')) for name in extra)
    x = torch.randn(2, 3, 48, 64)
    tokens, maps = pooled.forward_pooled(x)
    assert tokens.shape == (2, 1, 16)
    assert maps.shape == (2, 1, 3, 4)
    for model in (dense, PatchConvNet(arch=SMALL, pooling=True, out_indices=2)):
        with pytest.raises(RuntimeError, match=r'pooling=True.*last block \(5\)'):
            model.forward_pooled(x)


@pytest.mark.parametrize('stride', [3, 2, 12])
def test_impossible_stride(stride):
    with pytest.raises(ValueError, match=f'power of two.*stride={stride}'):
        PatchConvNet(arch=dict(width=16, depth=2, stride=stride))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(patch_embed='patches'), "patch_embed='patches'.*one of conv, linear"),
        (dict(trunk='mlp'), "trunk='mlp'.*one of conv, attention"),
        (dict(trunk='attention', head_dim=12), 'head_dim=12.*divide width=16'),
    ],
)
def test_wrong_ablation(fields, message):
    with pytest.raises(ValueError, match=message):
        PatchConvNet(arch=dict(SMALL, **fields))


def test_ablations_change_stem_and_trunk_alone():
    x = torch.randn(1, 3, 64, 64)
    plain, linear, attention = (PatchConvNet(f'nano{end}') for end in ('', '_linear', '_attention'))
    linear.blocks.load_state_dict(plain.blocks.state_dict())
    attention.stem[0].load_state_dict(plain.stem.state_dict())
    patches = linear.stem.conv
    expected = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(3)
    expected = torch.nn.functional.linear(expected, patches.weight.flatten(1), patches.bias)
    torch.testing.assert_close(linear.stem(x), expected.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        attention.stem[1].pos_embed.zero_()
        torch.testing.assert_close(attention.stem(x), plain.stem(x))
        # every position sees every other one
        y = attention.eval()(x)[-1]
        x[..., -1, -1] += 10
        assert (attention(x)[-1] != y).any(1).all()


def test_positions_of_another_image_size_are_interpolated(tmp_path):
    arch = dict(SMALL, trunk='attention', head_dim=8)
    small, large = (PatchConvNet(dict(arch, image_size=side)) for side in (64, 128))
    torch.save(small.state_dict(), tmp_path / 'small.pth')
    report = load_pretrained(large, tmp_path / 'small.pth')
    assert report.resized == ['stem.1.pos_embed'] and report.clean
    assert large.stem[1].pos_embed.shape == (1, 16, 8, 8)
    torch.testing.assert_close(
        large.stem[1].pos_embed.mean(), small.stem[1].pos_embed.mean(), atol=0.01, rtol=0
    )


@pytest.mark.parametrize('by', ['load_pretrained', 'load_state_dict'])
def test_one_class_token_becomes_one_per_class(by, tmp_path):
    one = PatchConvNet(SMALL, pooling=True)
    many = PatchConvNet(dict(SMALL, num_class_tokens=5), pooling=True)
    if by == 'load_pretrained':
        torch.save(one.state_dict(), tmp_path / 'one.pth')
        assert load_pretrained(many, tmp_path / 'one.pth').resized == ['pool.cls_token']
    else:
        many.load_state_dict(one.state_dict())
    token, tokens = one.pool.cls_token, many.pool.cls_token
    assert torch.equal(tokens, token.expand(1, 5, -1))
    assert tokens.data_ptr() != token.data_ptr() and tokens.is_contiguous()
    weights = many.state_dict()
    assert all(
        torch.equal(v, weights[n]) for n, v in one.state_dict().items() if n != 'pool.cls_token'
    )
    with pytest.raises(RuntimeError, match='cls_token'):  # not back, nor from another number
        PatchConvNet(dict(SMALL, num_class_tokens=4), pooling=True).load_state_dict(weights)


@pytest.mark.parametrize('norm', ['LN', 'BN'])
def test_deploy_leaves_no_scale_behind(norm):
    model = PatchConvNet(arch=SMALL, norm_cfg=dict(type=norm))
    model.switch_to_deploy()
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if 'gamma' in name or '.norm.' in name]
    model.switch_to_deploy()  # a second call changes nothing
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.parametrize('kind', ['LN', nn.LayerNorm, 'BN', 'GN'])
def test_norms_in_the_spelling_of_mmseg(kind):
    norm_cfg = dict(type=kind, **(dict(num_groups=4) if kind == 'GN' else {}))
    for requires_grad in (True, False):
        model = PatchConvNet(arch=SMALL, norm_cfg=dict(norm_cfg, requires_grad=requires_grad))
        trained = {p.requires_grad for n, p in model.named_parameters() if '.norm.' in n}
        assert trained == {requires_grad}
        model(torch.randn(2, 3, 48, 64))


@pytest.mark.parametrize('kind', ['LN', 'BN', 'GN', nn.GroupNorm])
def test_norms_train_behind_a_frozen_stem(kind):
    """PyTorch's group norm ended the process in the backward pass."""
    options = dict(num_groups=4) if kind in ('GN', nn.GroupNorm) else {}
    model = PatchConvNet(arch=SMALL, norm_cfg=dict(type=kind, **options), frozen_stages=0).train()
    reference = copy.deepcopy(model)
    x = torch.randn(2, 3, 48, 64)
    sum(out.square().sum() for out in model(x)).backward()
    x.requires_grad_()  # so that the stem's map wants a gradient
    sum(out.square().sum() for out in reference(x)).backward()
    assert any('.norm.' in name for name, p in model.named_parameters() if p.grad is not None)
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(
    'norm_cfg',
    [dict(type='BN', affine=False), dict(type='LN', bias=False), dict(type='GN', num_groups=4)],
)
def test_deployed_equals_trained_with_other_norms(norm_cfg):
    model = PatchConvNet(arch=dict(SMALL, layer_scale_init=1.0), norm_cfg=norm_cfg)
    for name, parameter in model.named_parameters():
        if '.norm.' in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    x = torch.randn(2, 3, 48, 64)
    model(x)  # moves running statistics
    assert_deploys_to_the_same(model, x, rtol=1e-4, atol=1e-5)
