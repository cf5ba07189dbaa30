"""Every variant keeps the dense contract of ``backbones/base.py``."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from mmengine.analysis import FlopAnalyzer, get_model_complexity_info
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.registry import MODELS
from attnpool_backbones.zoo.complexity import count_macs
from tests.backbones.deploying import assert_deploys_to_the_same
from tests.backbones.families import FAMILIES, VARIANTS

SIZES = [(32, 32), (33, 47), (64, 96), (224, 224), (100, 300)]

every_variant = pytest.mark.parametrize(
    'variant',
    [
        pytest.param(variant, id=variant.name, marks=[pytest.mark.slow] if variant.slow else [])
        for variant in VARIANTS
    ],
)


def build(variant, **options):
    torch.manual_seed(0)
    return MODELS.build(dict(variant.config, **options))


def images(*size, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def build_damped(variant):
    """Builds a variant for inference whose maps do not grow from block to block.

    Those of an untrained deep ResNet reach 1e5, and rounding grows with them; the residual
    branches of a trained one are small, and half the weight in BatchNorm makes them so.
    """
    model = build(variant).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.weight.mul_(0.5)
    return model


def loss_of(outputs):
    # A different weight for each position, so that no gradient cancels by symmetry.
    return sum(
        (_wide(y) * torch.linspace(0.5, 1.5, y.numel()).to(y.device).view_as(y)).square().mean()
        for y in outputs
    )


def _wide(y):
    return y if y.dtype == torch.float64 else y.float()


def train_once(model, x):
    """Returns outputs and gradients of one training step without an update."""
    model.train()
    torch.manual_seed(2)
    outputs = model(x)
    loss_of(outputs).backward()
    return outputs, {name: p.grad for name, p in model.named_parameters()}


each_nano_variant = pytest.mark.parametrize(
    'variant', [pytest.param(v, id=v.name) for v in VARIANTS if v.name.endswith('nano')]
)


@each_nano_variant
@pytest.mark.parametrize('size', [(1, 1), (20, 300), (64, 31)], ids=str)
def test_thin_images_are_padded_and_their_maps_cropped(variant, size):
    model = build(variant).eval()
    image = images(*size, batch=2)
    with torch.no_grad():
        outputs = model(image)
        whole = model(F.pad(image, (0, max(32 - size[1], 0), 0, max(32 - size[0], 0))))
    for y, z, stride in zip(outputs, whole, model.out_strides, strict=True):
        height, width = (-(-side // stride) for side in size)
        assert y.shape[2:] == (height, width) and y.is_contiguous()
        assert torch.equal(y, z[..., :height, :width])
    _, gradients = train_once(model, image)
    assert all(g is not None for g in gradients.values())


@every_variant
@pytest.mark.parametrize('size', SIZES, ids=lambda size: 'x'.join(map(str, size)))
def test_shapes(variant, size):
    model = build(variant).eval()
    with torch.no_grad():
        outputs = model(images(*size, batch=1))
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(model.out_indices) == len(model.out_channels)
    for y, channels, stride in zip(outputs, model.out_channels, model.out_strides, strict=True):
        assert y.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert y.isfinite().all()
        # mmcv's RoIAlign reads any map as if it were contiguous.
        assert y.is_contiguous()


@every_variant
def test_gradients_reach_every_parameter(variant):
    model = build(variant)
    _, gradients = train_once(model, images(64, 96))
    trained = {name: g for name, g in gradients.items() if model.get_parameter(name).requires_grad}
    assert trained
    assert [name for name, g in trained.items() if g is None] == []
    assert [name for name, g in trained.items() if not g.isfinite().all()] == []


@every_variant
def test_checkpointing_changes_nothing(variant):
    options = dict(drop_path_rate=0.3)
    plain, checkpointed = build(variant, **options), build(variant, with_cp=True, **options)
    checkpointed.load_state_dict(plain.state_dict())
    x = images(64, 64)
    (outputs, gradients), (outputs_cp, gradients_cp) = (
        train_once(model, x) for model in (plain, checkpointed)
    )
    torch.testing.assert_close(outputs_cp, outputs)
    torch.testing.assert_close(gradients_cp, gradients)
    torch.testing.assert_close(dict(checkpointed.named_buffers()), dict(plain.named_buffers()))


@every_variant
def test_frozen_stages_freezes_exactly_that(variant):
    depth = len(build(variant).stage_prefixes()) - 1
    for frozen in sorted({-1, 0, 1, depth}):
        model = build(variant, frozen_stages=frozen).train()
        prefixes = [p for group in model.stage_prefixes()[: frozen + 1] for p in group]
        never_trained = {n for n, p in build(variant).named_parameters() if not p.requires_grad}
        for name, parameter in model.named_parameters():
            is_frozen = any(name == p or name.startswith(p + '.') for p in prefixes)
            assert parameter.requires_grad == (not is_frozen and name not in never_trained), name
        for name, module in model.named_modules():
            if name:
                is_frozen = any(name == p or name.startswith(p + '.') for p in prefixes)
                assert module.training == (not is_frozen), name
    with pytest.raises(ValueError, match=f'frozen_stages={depth + 1}'):
        build(variant, frozen_stages=depth + 1)


@each_nano_variant
def test_what_is_not_frozen_trains(variant):
    depth = len(build(variant).stage_prefixes()) - 1
    for frozen in (0, depth):
        model = build(variant, frozen_stages=frozen)
        wanted = {n for n, p in model.named_parameters() if p.requires_grad}
        gradients = train_once(model, images(32, 32))[1] if wanted else {}
        assert {n for n, gradient in gradients.items() if gradient is not None} == wanted


@every_variant
def test_norm_eval_keeps_running_statistics(variant):
    model = build(variant, norm_eval=True)
    before = copy.deepcopy(dict(model.named_buffers()))
    train_once(model, images(64, 64))
    torch.testing.assert_close(dict(model.named_buffers()), before)
    assert all(not m.training for m in model.modules() if isinstance(m, _BatchNorm))


@every_variant
def test_batch_elements_are_independent(variant):
    model = build_damped(variant)
    x = images(64, 64)
    with torch.no_grad():
        together, alone = model(x), model(x[1:])
    for y, y_alone in zip(together, alone, strict=True):
        torch.testing.assert_close(y[1:], y_alone, rtol=1e-4, atol=1e-4)


@every_variant
def test_memory_format_changes_nothing(variant):
    model = build_damped(variant)
    x = images(64, 96)
    with torch.no_grad():
        outputs = model(x)
        outputs_last = model(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(outputs_last, outputs, rtol=1e-4, atol=1e-4)


@every_variant
def test_inference_computes_what_a_training_pass_computes(variant):
    # Without gradients temporaries are overwritten and norms computed along.
    model = build_damped(variant)
    x = images(64, 96)
    outputs = [y.detach() for y in model(x)]
    given = x.clone()
    with torch.no_grad():
        first, second = model(given), model(given)
    assert torch.equal(given, x)
    torch.testing.assert_close(list(first), outputs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@every_variant
def test_bfloat16_autocast_is_close(variant):
    model = build_damped(variant)
    x = images(64, 64)
    with torch.no_grad():
        outputs = model(x)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            outputs_bf16 = model(x)
    for y, y_bf16 in zip(outputs, outputs_bf16, strict=True):
        error = (y_bf16.float() - y).square().mean().sqrt() / y.square().mean().sqrt()
        assert error < 0.05


@every_variant
def test_state_dict_round_trip(variant):
    model = build(variant).eval()
    file = io.BytesIO()  # pytest keeps the files of its last runs: those of all sizes take 20 GB
    torch.save(model.state_dict(), file)
    torch.manual_seed(5)
    other = MODELS.build(dict(variant.config)).eval()
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    x = images(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)


@every_variant
def test_deployed_equals_trained(variant):
    model = build(variant)
    train_once(model, images(64, 96))  # moves running statistics away from 0 and 1
    assert_deploys_to_the_same(model, images(64, 64), rtol=1e-3, atol=1e-3)


@every_variant
def test_layer_depths(variant):
    model = build(variant)
    names = [name for name, _ in model.named_parameters()]
    depths = {name: model.get_layer_depth('backbone.' + name, 'backbone.') for name in names}
    num_layers = {n for _, n in depths.values()}
    assert num_layers == {len(model.layer_prefixes()) + 1}
    used = {depth for depth, _ in depths.values()}
    blocks = set(range(num_layers.pop() - 1))
    assert blocks <= used  # the stem and every block have parameters
    for prefix in model.stage_prefixes()[0]:
        assert {d for n, (d, _) in depths.items() if n.startswith(prefix)} == {0}
    with pytest.raises(ValueError, match="does not start with 'neck.'"):
        model.get_layer_depth('backbone.x', 'neck.')


@every_variant
def test_first_outputs_alone_are_the_same(variant):
    model = build(variant).eval()
    first = model.out_indices[:1]
    alone = build(variant, out_indices=first).eval()
    state = model.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    x = images(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(alone(x), model(x)[:1])
    _, gradients = train_once(alone, x)
    trained = [name for name, p in alone.named_parameters() if p.requires_grad]
    assert [name for name in trained if gradients[name] is None] == []


@pytest.mark.slow  # most of it is the C++ compiler's
@pytest.mark.parametrize(
    'variant',
    [pytest.param(v, id=v.name) for v in VARIANTS if v.compiled],
)
def test_compiled_equals_eager(variant):
    torch._dynamo.reset()  # all families share a forward method, which eight models may compile
    model = build(variant).eval()
    compiled = torch.compile(model, fullgraph=True)
    for size in [(64, 64), (96, 64)]:
        x = images(*size, batch=1)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-3, atol=1e-3)


@pytest.mark.slow  # as above
@pytest.mark.parametrize('variant', FAMILIES.values(), ids=FAMILIES)
def test_compiled_trains_as_eager(variant):
    # of 2 x 3 positions at the end: fewer than a vector has
    assert_compiled_trains_as_eager(build_damped(variant), images(64, 96))


@pytest.mark.slow  # as above
@pytest.mark.parametrize('variant', FAMILIES.values(), ids=FAMILIES)
def test_compiled_checkpointing_changes_nothing(variant):
    torch._dynamo.reset()
    options = dict(drop_path_rate=0.3)
    plain = build(variant, **options).double()  # the compiler sees formulas, which round otherwise
    checkpointed = build(variant, with_cp=True, **options).double()
    checkpointed.load_state_dict(plain.state_dict())
    x = images(64, 64).double()
    compiled = torch.compile(checkpointed, fullgraph=True, backend='aot_eager')
    (outputs, gradients), (outputs_cp, gradients_cp) = (
        train_once(model, x) for model in (plain, compiled)
    )
    gradients_cp = {name.removeprefix('_orig_mod.'): g for name, g in gradients_cp.items()}
    torch.testing.assert_close(outputs_cp, outputs)
    torch.testing.assert_close(gradients_cp, gradients)
    torch.testing.assert_close(dict(checkpointed.named_buffers()), dict(plain.named_buffers()))


def assert_compiled_trains_as_eager(model, x):
    torch._dynamo.reset()
    expected = train_once(model, x)[1]
    model.zero_grad(set_to_none=True)
    computed = train_once(torch.compile(model, fullgraph=True), x)[1]
    largest = max(float(g.abs().max()) for g in expected.values() if g is not None)
    for name, gradient in expected.items():
        if gradient is not None:
            found = computed[f'_orig_mod.{name}']
            torch.testing.assert_close(found, gradient, rtol=1e-2, atol=1e-3 * largest)


@pytest.mark.parametrize('variant', FAMILIES.values(), ids=list(FAMILIES))
class TestErrors:
    """Wrong arguments end with the wrong value and the right ones."""

    def test_unknown_arch_lists_the_known(self, variant):
        name = next(iter(MODELS.get(variant.config['type']).archs))
        with pytest.raises(ValueError, match=f"no arch 'x99'.*{name}"):
            MODELS.build(dict(variant.config, arch='x99'))

    def test_unknown_and_missing_fields(self, variant):
        with pytest.raises(ValueError, match=r"unknown fields \['wdth'\], missing fields"):
            MODELS.build(dict(variant.config, arch=dict(wdth=8)))

    def test_a_variant_with_other_fields(self, variant):
        family = MODELS.get(variant.config['type'])
        name, known = next(iter(family.archs.items()))
        assert family.resolve_arch(dict(base=name)) == known
        depth = known.depth + 1 if 'depth' in vars(known) else tuple(d + 1 for d in known.depths)
        changed = {'depths' if isinstance(depth, tuple) else 'depth': depth}
        assert family.resolve_arch(dict(base=name, **changed)) == replace(known, **changed)
        with pytest.raises(ValueError, match=r"unknown fields \['wdth'\], missing fields \[\]"):
            family.resolve_arch(dict(base=name, wdth=8))
        with pytest.raises(ValueError, match="no arch 'x99'"):
            family.resolve_arch(dict(base='x99'))

    def test_arch_of_another_type(self, variant):
        with pytest.raises(TypeError, match='must be a name or a dict, not 60'):
            MODELS.build(dict(variant.config, arch=60))

    @pytest.mark.parametrize('out_indices', [(), (99,), (0, 0), (1, 0)])
    def test_out_indices(self, variant, out_indices):
        with pytest.raises(ValueError, match='out_indices=.*must be ascending'):
            MODELS.build(dict(variant.config, out_indices=out_indices))

    @pytest.mark.parametrize('shape', [(3, 64, 64), (1, 1, 64, 64), (0, 3, 64, 64), (1, 3, 0, 9)])
    def test_input(self, variant, shape):
        with pytest.raises(ValueError, match='takes images B, 3, H, W, none of these 0, not'):
            build(variant)(torch.zeros(shape))

    def test_drop_path_rate(self, variant):
        with pytest.raises(ValueError, match='0 <= rate < 1'):
            build(variant, drop_path_rate=1.0)


TRACED = [
    pytest.param(v, id=v.name)
    for v in VARIANTS
    if v.name.endswith('nano') or v.name in ('coatnet-small-after', 'patchconvnet-small-attention')
]


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('variant', TRACED)
def test_mmengine_counts_it(variant):
    model = build(variant).eval()
    counted = get_model_complexity_info(model, (3, 64, 96), show_table=False, show_arch=False)
    assert counted['params'] == sum(p.numel() for p in model.parameters())
    image = images(64, 96, batch=1)
    by_operator = FlopAnalyzer(model, (image,)).by_operator()
    assert counted['flops'] == sum(by_operator.values())
    products = sum(by_operator[kind] for kind in ('conv', 'linear', 'matmul'))
    with torch.no_grad():
        assert products == count_macs(lambda: model(image))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('grad', [False, True], ids=['inference', 'gradients'])
@pytest.mark.parametrize('variant', TRACED)
def test_traced_files_hold_operators_of_torch_alone(variant, grad):
    model, x, file = build_damped(variant), images(64, 96), io.BytesIO()
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(model, x, check_trace=False)
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert 'attnpool_backbones::' not in str(loaded.inlined_graph)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('variant', FAMILIES.values(), ids=FAMILIES)
def test_exported_programs_take_any_number_of_images(variant):
    model = build_damped(variant)
    number = {0: torch.export.Dim('number', min=1, max=64)}
    with torch.no_grad():
        exported = torch.export.export(
            model, (images(64, 96),), dynamic_shapes=(number,), strict=False
        )
        for batch in (3, 5):
            x = images(64, 96, batch=batch)
            torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-3, atol=1e-4)


def test_every_family_has_a_table():
    registered = {
        name
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type) and issubclass(cls, DenseBackbone)
    }
    assert registered == set(FAMILIES)
