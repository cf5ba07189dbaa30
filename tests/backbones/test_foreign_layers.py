"""What others do to a backbone's layers acts on every one: hooks, adapters, quantisation, fusing.

Operators compute some layers from their weights without calling them, but plain ones only.
"""

import copy

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.utils import fuse_conv_bn
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune

from attnpool_backbones.layers.attention_units import ATTENTIONS
from attnpool_backbones.layers.bam import BAM
from attnpool_backbones.layers.cbam import CBAM
from attnpool_backbones.layers.global_context import GC
from attnpool_backbones.layers.selective_kernel import SelectiveKernel
from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.layers.squeeze_excite import SqueezeExcite
from attnpool_backbones.ops import formulas
from attnpool_backbones.registry import MODELS
from tests.backbones.families import VARIANTS
from tests.wrapping import Wrapper

SMALL = [variant for variant in VARIANTS if not variant.slow]
DIFFERENT = [
    variant for variant in SMALL
    if variant.compiled or variant.name in (
        'coatnet-small-next', 'coatnet-small-rmlp', 'metaformer-caformer_nano', 'attn_resnet-sk',
    )
]  # fmt: skip
"""One of every family, and those with layers that it does not have."""
FIRST_WITH_UNITS = (*ATTENTIONS, 'coatnet-small-bn-rw', 'patchconvnet-small')
WITHOUT_UNITS = (
    'attn_resnet-plain', 'coatnet-small-next', 'coatnet-small-vit',
    'patchconvnet-small-attention', 'patchconvnet-small-linear-attention-bn',
)  # fmt: skip
every_small_variant = pytest.mark.parametrize('variant', SMALL, ids=lambda v: v.name)
different_first = pytest.mark.parametrize(
    'variant',
    [v if v in DIFFERENT else pytest.param(v, marks=pytest.mark.slow) for v in SMALL],
    ids=lambda v: v.name,
)
LAYERS = (nn.Linear, nn.Conv2d)
NO_LAYERS = (nn.Identity, nn.ModuleList, nn.ModuleDict)


def build(variant):
    """Builds a variant in float64 whose norms are no identities and whose scales are not small."""
    torch.manual_seed(0)
    model = MODELS.build(dict(variant.config)).double()
    for parameter in model.parameters():
        if parameter.dim() < 2:
            nn.init.uniform_(parameter, 0.3, 0.7)
        elif not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def images():
    return torch.randn(2, 3, 40, 33, dtype=torch.float64)


def seeded(model, x):
    torch.manual_seed(1)
    return model(x)


@every_small_variant
@torch.no_grad()
def test_fuse_conv_bn_changes_nothing(variant):
    model, x = build(variant).eval(), images()
    expected = model(x)
    fuse_conv_bn(model)
    torch.testing.assert_close(model(x), expected)
    if variant.config['type'] == 'AttnResNet':  # where every BatchNorm follows a convolution
        assert not any(isinstance(m, _BatchNorm) for m in model.modules())


@pytest.mark.parametrize(
    ('variant', 'training'),
    [
        *((v, False) for v in SMALL),
        *(
            (v, True) if v in DIFFERENT else pytest.param(v, True, marks=pytest.mark.slow)
            for v in SMALL
        ),
    ],
)
def test_forward_hooks_see_every_layer(variant, training):
    model, x = build(variant).train(training), images()
    plain = copy.deepcopy(model)
    seen = set()
    leaves = {
        name: module
        for name, module in model.named_modules()
        if not any(module.children()) and not isinstance(module, NO_LAYERS)
    }
    for name, module in leaves.items():
        module.register_forward_hook(lambda *_, name=name: seen.add(name))
    torch.testing.assert_close(seeded(model, x), seeded(plain, x))
    assert set(leaves) == seen


class Adapter(nn.Module):
    """A low-rank adapter as the usual libraries put it around a layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.added = copy.deepcopy(base)
        with torch.no_grad():
            self.added.weight.normal_(std=0.05)
            if base.bias is not None:
                self.added.bias.zero_()

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        return self.base(x) + self.added(x)


@different_first
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_adapters_act_on_every_layer(variant, training):
    model, x = build(variant).train(training), images()
    merged = copy.deepcopy(model)
    adapted = [name for name, m in model.named_modules() if isinstance(m, LAYERS)]
    for name in adapted:
        adapter = Adapter(model.get_submodule(name)).train(training)
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, adapter)
        with torch.no_grad():
            merged.get_submodule(name).weight += adapter.added.weight
    outputs, expected = seeded(model, x), seeded(merged, x)
    torch.testing.assert_close(outputs, expected)
    sum(y.square().mean() for y in outputs).backward()
    sum(y.square().mean() for y in expected).backward()
    for name in adapted:
        gradient = merged.get_submodule(name).weight.grad
        torch.testing.assert_close(model.get_submodule(name).added.weight.grad, gradient)
    if not training:
        with torch.no_grad():
            model.switch_to_deploy()
            torch.testing.assert_close(list(model(x)), [y.detach() for y in expected])


@different_first
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_wrapped_layers_need_no_attributes(variant, training):
    model, x = build(variant).train(training), images()
    expected = seeded(copy.deepcopy(model), x)
    for name, module in list(model.named_modules()):
        if not any(module.children()) and any(True for _ in module.parameters()):
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, Wrapper(module).train(training))
    torch.testing.assert_close(seeded(model, x), expected)
    with torch.no_grad():
        model.eval()
        expected = model(x)
        model.switch_to_deploy()
        torch.testing.assert_close(model(x), expected)


@different_first
def test_stochastic_depth_may_be_taken_out(variant):
    model, x = build(variant).train(), images()
    parts = [(name, m) for name, m in model.named_modules() if isinstance(m, DropPath)]
    for _, part in parts:
        part.drop_prob = 0.0
    expected = seeded(copy.deepcopy(model), x)
    for name, _ in parts:
        model.set_submodule(name, nn.Identity())
    torch.testing.assert_close(seeded(model, x), expected)


UNITS = SGE, SqueezeExcite, CBAM, GC, BAM, SelectiveKernel
with_units = pytest.mark.parametrize(
    'variant',
    [
        variant if variant.name.removeprefix('attn_resnet-') in FIRST_WITH_UNITS
        else pytest.param(variant, marks=pytest.mark.slow)
        for variant in SMALL
        if variant.config['type'] in ('AttnResNet', 'CoAtNet', 'PatchConvNet')
        and variant.name not in WITHOUT_UNITS
    ],
    ids=lambda v: v.name,
)  # fmt: skip


def units_of(model):
    found = {name: m for name, m in model.named_modules() if isinstance(m, UNITS)}
    assert found
    return found


@with_units
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('gradients', [False, True], ids=['', 'gradients'])
def test_units_may_be_taken_out(variant, training, gradients):
    model, x = build(variant).train(training), images()
    without = copy.deepcopy(model)
    for name, unit in units_of(model).items():
        if not isinstance(unit, SelectiveKernel):  # which changes the resolution
            unit.register_forward_hook(lambda unit, inputs, output: inputs[0])
            without.set_submodule(name, nn.Identity())
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(seeded(without, x), seeded(model, x))


@with_units
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('gradients', [False, True], ids=['', 'gradients'])
def test_hooks_of_units_see_what_units_return(variant, training, gradients):
    model, x = build(variant).train(training), images()
    plain, seen = copy.deepcopy(model), []
    for unit in units_of(model).values():
        unit.register_forward_hook(lambda unit, *seen_: seen.append((unit, *seen_)))
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(seeded(model, x), seeded(plain, x))
        assert len(seen) == len(units_of(model))
        for unit, inputs, output in seen:
            torch.testing.assert_close(output, unit.forward(*inputs))
            assert len(inputs) == 1


@different_first
@pytest.mark.parametrize('chosen', [slice(None), slice(0, None, 2), slice(1, None, 2)], ids=str)
@torch.no_grad()
def test_nothing_overwrites_what_hooks_keep(variant, chosen):
    model, x = build(variant).eval(), images()
    for module in model.modules():
        if isinstance(module, nn.ReLU):  # this is torch's own way to overwrite
            module.inplace = False
    kept = []
    leaves = [
        (name, m)
        for name, m in model.named_modules()
        if not any(m.children()) and not isinstance(m, NO_LAYERS)
    ]

    def keep(name, output):
        if isinstance(output, torch.Tensor):  # attention pooling also gives its map
            kept.append((name, output, output.clone()))

    for name, module in leaves[chosen]:
        module.register_forward_hook(lambda m, inputs, output, name=name: keep(name, output))
    model(x)
    assert kept
    assert [name for name, output, before in kept if not output.equal(before)] == []


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


@different_first
@torch.no_grad()
def test_parametrisations_act_on_every_layer(variant):
    model, x = build(variant).eval(), images()
    doubled = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, LAYERS):
            parametrize.register_parametrization(module, 'weight', Doubled())
            doubled.get_submodule(name).weight *= 2
    torch.testing.assert_close(model(x), doubled(x))


REWRITES = {
    'pruned': lambda layer: prune.ln_structured(layer, 'weight', amount=0.5, n=1, dim=0),
    'weight norm': nn.utils.weight_norm,
    'spectral norm': nn.utils.spectral_norm,
}
"""What makes a layer's weight anew in a hook before every call."""


@different_first
@torch.no_grad()
def test_deploying_again_folds_what_hooks_kept(variant):
    model, x = build(variant).eval(), images()
    layers = [m for name, m in model.named_modules() if name.endswith(('proj', 'conv2'))]
    hooks = [m.register_forward_hook(lambda *_: None) for m in layers]
    expected = model(x)
    for _ in range(2):
        model.switch_to_deploy()
        torch.testing.assert_close(model(x), expected)
        for hook in hooks:
            hook.remove()


@pytest.mark.filterwarnings('ignore:.*weight_norm.*is deprecated:FutureWarning')
@pytest.mark.parametrize('rewrite', REWRITES.values(), ids=list(REWRITES))
@different_first
@torch.no_grad()
def test_deploying_keeps_weights_that_hooks_rewrite(variant, rewrite):
    model, x = build(variant).eval(), images()
    for module in list(model.modules()):
        if isinstance(module, LAYERS):
            rewrite(module)
    expected = model(x)
    model.switch_to_deploy()
    torch.testing.assert_close(model(x), expected)


@different_first
@torch.no_grad()
def test_padding_modes_act_on_every_convolution(variant):
    model, x = build(variant).eval(), images()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        module.padding_mode = 'replicate'
    # layers with hooks are called
    hooks = [module.register_forward_hook(lambda *_: None) for module in convolutions]
    with formulas():
        expected = model(x)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(model(x), expected)
    model.switch_to_deploy()
    torch.testing.assert_close(model(x), expected)


@pytest.mark.filterwarnings('ignore:.*torch.ao.quantization.*:DeprecationWarning')
@different_first
@torch.no_grad()
def test_dynamic_quantisation_acts_on_every_linear_layer(variant):
    model, x = build(variant).float().eval(), images().float()
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    for name in linear:
        assert isinstance(quantised.get_submodule(name), nn.quantized.dynamic.Linear)
    outputs, expected = quantised(x), model(x)
    for y, right in zip(outputs, expected, strict=True):
        assert (y - right).norm() <= 0.15 * right.norm()
    assert not linear or not torch.equal(outputs[-1], expected[-1])


def test_norm_eval_fixes_the_synchronised_norms_of_mmcv():
    pytest.importorskip('mmcv.ops')
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    try:
        config = dict(type='AttnResNet', arch='nano', norm_cfg=dict(type='MMSyncBN'))
        backbone = MODELS.build(dict(config, norm_eval=True)).train()
    finally:
        distributed.destroy_process_group()
    norms = [module for module in backbone.modules() if hasattr(module, 'running_mean')]
    assert {type(norm).__module__ for norm in norms} >= {'mmcv.ops.sync_bn'}
    assert not any(norm.training for norm in norms)
