"""Subjects of the golden fixtures: small models with weights in the official format."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from attnpool_backbones.analysis.subjects import Subject, View
from attnpool_backbones.checkpoints import load_pretrained, recognise
from attnpool_backbones.registry import MODELS
from tests.backbones.families import GOLDEN
from tests.golden import load_golden, official_state_dict


def as_subject(model: nn.Module, name: str = 'model', **options) -> Subject:
    """Makes a subject of a backbone, whose images are 64 x 64 and not normalised."""

    def prepare(name: str, image: np.ndarray) -> View:
        inputs = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
        return View(name, image, inputs, (1.0, 1.0))

    return Subject(name, model.eval(), getattr(model, 'backbone', model), prepare, **options)


def golden_subject(file: str, tmp_path) -> tuple[Subject, dict[str, np.ndarray], Tensor]:
    """Returns a subject, its fixture and the fixture's images."""
    (case,) = [case for case in GOLDEN if case.file == file]
    fixture = load_golden(file)
    checkpoint = tmp_path / 'official.pth'
    state = official_state_dict(fixture)
    torch.save(state, checkpoint)
    model = MODELS.build(dict(case.config))
    load_pretrained(model, checkpoint)
    converted = recognise(state).convert(state)
    head = {name: value for name, value in converted.items() if name.startswith('head.')}
    return as_subject(model, file, head=head), fixture, torch.from_numpy(fixture['input'])


def single_unit(unit: nn.Module) -> Subject:
    """Makes a subject whose backbone is one unit."""
    return as_subject(nn.Sequential(unit), type(unit).__name__)


def arguments(**options) -> SimpleNamespace:
    """Returns arguments as the command line gives them."""
    common = dict(checkpoint=None, size=None, random_weights=True, device='cpu', limit=2)
    return SimpleNamespace(**(common | options))
