from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from attnpool_backbones.analysis import gates
from attnpool_backbones.analysis.gates import contrast, gates_of
from attnpool_backbones.analysis.subjects import View
from attnpool_backbones.backbones import AttnResNet, CoAtNet, DeepViT, PatchConvNet
from attnpool_backbones.command_line import UserError
from attnpool_backbones.layers.selective_kernel import SelectiveKernel
from tests.analysis.subjects import arguments, as_subject, single_unit
from tests.layers.test_attention_units import OFFICIAL, official_unit

UNITS = [name for name in OFFICIAL if not name.startswith('sk')]


@pytest.mark.parametrize('name', UNITS)
@torch.no_grad()
def test_gate_makes_the_official_output(name):
    unit, x, y = official_unit(name)
    gate = unit.gate(x)
    if name.startswith('gc'):
        assert torch.allclose(gate.sum((2, 3)), torch.ones(len(x), 1))
        context = (x * gate).sum((2, 3), keepdim=True)  # B, C, 1, 1
        made = x + unit.channel_add_conv(context)
    elif name.startswith('bam'):
        made = x * (1 + gate)
    else:
        groups = (
            gate.repeat_interleave(x.shape[1] // gate.shape[1], 1) if gate.shape[1] > 1 else gate
        )
        made = x * groups
    torch.testing.assert_close(made, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', UNITS)
def test_lengths_are_those_of_the_official_maps(name):
    unit, x, y = official_unit(name)
    (found,) = gates_of(single_unit(unit), x[:1])
    for lengths, expected in ((found.before, x), (found.after, y)):
        expected = expected[0].square().sum(0).sqrt()
        torch.testing.assert_close(lengths, expected, atol=1e-4, rtol=1e-4)
    assert found.range[0] == pytest.approx(float(unit.gate(x[:1]).detach().min()))


@torch.no_grad()
def test_selective_kernels():
    unit, x = SelectiveKernel(8, 2, 4, 2, dict(type='BN')).eval(), torch.randn(1, 8, 10, 12)
    (found,) = gates_of(single_unit(unit), x)
    assert found.kind == 'SK' and found.after.shape == (5, 6)
    dense = torch.relu(unit.bn(unit.conv(x)))
    grouped = torch.relu(unit.bn_grouped(unit.conv_grouped(x)))
    weight = unit.gate(x)
    torch.testing.assert_close(unit(x), weight * dense + (1 - weight) * grouped)


@torch.no_grad()
def test_before_and_after_lie_on_the_branch_of_a_block():
    model = AttnResNet(arch='nano').eval()
    for name, parameter in model.named_parameters():
        if '.sge.' in name:
            parameter.normal_()
    block, seen = model.layer2[-1], []
    block.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    found = {gate.name: gate for gate in gates_of(as_subject(model), torch.randn(1, 3, 64, 96))}
    y, conv, norm = block.branch(seen[0])
    y = norm(conv(y))
    gate = found[f'layer2.{len(model.layer2) - 1}.sge']
    torch.testing.assert_close(gate.before, y[0].norm(dim=0), atol=1e-5, rtol=1e-4)
    enhanced = y.unflatten(1, (block.sge.groups, -1)) * block.sge.gate(y)[:, :, None]
    torch.testing.assert_close(
        gate.after, enhanced.flatten(1, 2)[0].norm(dim=0), atol=1e-5, rtol=1e-4
    )
    assert len(found) == sum(model.arch.depths)


def test_looking_changes_nothing():
    model, x = AttnResNet(arch='nano').eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        gates_of(as_subject(model), x)
        after = model(x)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_contrast_knows_no_scale():
    lengths = torch.rand(5, 7)
    assert contrast(3 * lengths) == pytest.approx(contrast(lengths))
    assert contrast(torch.ones(4, 4)) == 0


def test_models_without_units_get_a_clear_line():
    for model in (AttnResNet(arch='resnet_nano'), DeepViT(arch='nano')):
        with pytest.raises(UserError, match='no attention unit with a gate; SGE, CBAM'):
            gates_of(as_subject(model), torch.randn(1, 3, 64, 64))


@pytest.fixture
def two_subjects(monkeypatch, tmp_path):
    """Gives models by name, the second of which sees images in another way, and two images."""
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{index}.png'), pixels)

    def see(name, image):
        inputs = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
        return View(name, image, inputs, (1.0, 1.0))

    subjects = dict(
        own=as_subject(AttnResNet(arch='sge_resnet_nano'), 'own'),
        beside=replace(as_subject(AttnResNet(arch='resnet_nano'), 'beside'), prepare=see),
        coarse=as_subject(PatchConvNet(arch='nano', out_indices=-1), 'coarse'),
    )
    monkeypatch.setattr(gates, 'load_subject', lambda name, *args: subjects[name])
    common = dict(model='own', images=str(tmp_path), units=None, beside_checkpoint=None)
    return subjects, lambda **options: arguments(**(common | options))


@torch.no_grad()
def test_every_image_is_seen_by_both_models_in_their_own_way(two_subjects, tmp_path):
    subjects, given = two_subjects
    numbers = gates.draw(given(beside='beside')).numbers
    assert [Path(entry['image']).name for entry in numbers['images']] == ['0.png', '1.png']
    for entry in numbers['images']:
        image = cv2.imread(str(tmp_path / Path(entry['image']).name))
        for name, stages in entry['stages'].items():
            subject = subjects[name]
            maps = subject.backbone(subject.prepare('', image).inputs)
            for stage, x in zip(stages, maps, strict=True):
                torch.testing.assert_close(stage['lengths'], x[0].norm(dim=0))


def test_a_model_without_maps_of_that_size_is_not_drawn_beside(two_subjects):
    _, given = two_subjects
    with pytest.raises(UserError, match='--beside coarse: of .* it has maps of 8x8, but the units'):
        gates.draw(given(beside='coarse', units=['layer1.0.sge']))


@pytest.mark.parametrize('model', [PatchConvNet(arch='nano'), CoAtNet(arch='nano')], ids=type)
def test_units_of_other_families(model):
    """Their blocks call a unit with options of their own."""
    assert {gate.kind for gate in gates_of(as_subject(model), torch.randn(1, 3, 64, 64))} == {'SE'}
