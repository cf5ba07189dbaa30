"""A run starts only with a checkpoint of its own model."""

import pytest
import torch
from mmengine.model import BaseTTAModel
from safetensors.torch import save_file
from torch import nn

from attnpool_backbones.checkpoints.errors import CheckpointMismatch
from attnpool_backbones.checkpoints.matching import shapes_of
from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching.checkpoint_check import require_own_weights, stored_shapes


def detector(width: int = 4, trunk: str = 'blocks') -> nn.Module:
    """A backbone of four parameters, a head of eight and a norm of two, with statistics."""
    blocks = nn.ModuleDict({trunk: nn.ModuleList(nn.Linear(3, width) for _ in range(2))})
    head = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))
    return nn.ModuleDict(dict(backbone=blocks, head=head, norm=nn.BatchNorm1d(2)))


class Augmented(BaseTTAModel):
    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module

    def merge_preds(self, data_samples_list: list) -> list:
        return data_samples_list


# what the file holds, what the message says
FOREIGN = {
    'one_key': (dict(weight=torch.zeros(2)), ['only 0 of the 16', 'weight', 'backbone.blocks.0']),
    'other_backbone': (
        detector(trunk='stages').state_dict(),
        ['only 12 of the 16', 'backbone.stages.0.weight', 'backbone.blocks.0.weight'],
    ),
    'other_width': (
        detector(5).state_dict(),
        ['only 12 of the 16', 'backbone.blocks.0.weight (5x3 there, 4x3 here)'],
    ),
    'other_classes': (
        {**detector().state_dict(), 'head.0.bias': torch.zeros(7)},
        ['only 15 of the 16', 'numbers of classes differ', 'head.0.bias (7 there, 2 here)'],
    ),
    'no_statistics': (
        {n: v for n, v in detector().state_dict().items() if 'running_var' not in n},
        ['only 15 of the 16', 'norm.running_var'],
    ),
}


@pytest.mark.parametrize('name', FOREIGN)
def test_refuses_weights_of_another_model(name, tmp_path):
    weights, parts = FOREIGN[name]
    file = str(tmp_path / 'other.pth')
    torch.save(dict(state_dict=weights), file)
    with pytest.raises(CheckpointMismatch) as caught:
        require_own_weights(detector(), stored_shapes(file), file)
    assert all(part in str(caught.value) for part in [file, *parts])


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'model.'])
@pytest.mark.parametrize('whole', [True, False])
def test_takes_own_weights(prefix, whole, tmp_path):
    weights = {prefix + name: value for name, value in detector().state_dict().items()}
    weights = {name: v for name, v in weights.items() if 'num_batches' not in name}
    file = str(tmp_path / 'own.pth')
    torch.save(dict(state_dict=weights) if whole else weights, file)
    model = detector()
    require_own_weights(model, stored_shapes(file), file)
    require_own_weights(Augmented(model), stored_shapes(file), file)


def test_addresses_and_safetensors(tmp_path):
    save_file(detector().state_dict(), tmp_path / 'a.safetensors')
    model = detector()
    for path in (str(tmp_path / 'a.safetensors'), f'file://{tmp_path}/a.safetensors'):
        require_own_weights(model, stored_shapes(path), path)
    with pytest.raises(UserError, match='could not be downloaded'):
        stored_shapes('http://127.0.0.1:9/a.pth')  # the discard port: nobody answers


def test_names_that_the_model_gives_itself_count():
    """As mmdet's SoftTeacher takes the weights of one detector."""

    class Pair(nn.ModuleDict):
        def _load_from_state_dict(self, state_dict: dict, *others: object) -> None:
            for name in list(state_dict):
                value = state_dict.pop(name)
                state_dict.update({f'{who}.{name}': value for who in self})
            super()._load_from_state_dict(state_dict, *others)

    pair = Pair(dict(student=detector(), teacher=detector()))
    shapes = shapes_of(detector().state_dict())
    require_own_weights(pair, shapes, 'detector.pth')
    assert shapes.keys() == detector().state_dict().keys()
    with pytest.raises(CheckpointMismatch, match=r'not in the file: student\.norm'):
        lacking = {name: shape for name, shape in shapes.items() if 'norm' not in name}
        require_own_weights(pair, lacking, 'detector.pth')
