"""``--compile`` compiles the backbone and nothing else."""

from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from mmengine.config import Config
from torch import nn

from attnpool_backbones.backbones import PatchConvNet
from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine import CompileBackboneHook
from attnpool_backbones.launching import launch
from attnpool_backbones.registry import HOOKS


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = PatchConvNet('nano').eval()


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel], ids=['bare', 'wrapped'])
def test_backbone_is_compiled_in_place(wrap):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = Detector()
    names, x = list(model.state_dict()), torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        expected = model.backbone(x)
    CompileBackboneHook(backend=backend).before_run(SimpleNamespace(model=wrap(model)))
    assert not graphs  # at the first call
    with torch.no_grad():
        outputs = model.backbone(x)
    assert len(graphs) == 1
    for a, b in zip(outputs, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert list(model.state_dict()) == names


def test_backbones_of_several_detectors_are_compiled():
    model = nn.ModuleDict(dict(student=Detector(), teacher=Detector()))
    model.student.backbone.backbone = nn.Identity()  # within one that is compiled
    model.student.backbone_norm = nn.Identity()
    compiled = []
    with patch.object(nn.Module, 'compile', lambda module: compiled.append(module)):
        CompileBackboneHook().before_run(SimpleNamespace(model=model))
    assert compiled == [model.student.backbone, model.teacher.backbone]


def test_a_model_without_a_backbone_is_told():
    with pytest.raises(UserError, match='--compile: Linear has no backbone'):
        CompileBackboneHook().before_run(SimpleNamespace(model=nn.Linear(1, 1)))


@pytest.mark.parametrize('hooks', [None, [dict(type='EMAHook')]])
def test_flag_adds_the_hook(hooks):
    cfg = Config(dict(custom_hooks=hooks))
    launch.enable_compilation(cfg)
    assert len(cfg.custom_hooks) == len(hooks or []) + 1
    assert isinstance(HOOKS.build(cfg.custom_hooks[-1]), CompileBackboneHook)
