"""Which parts of a model are sharded one by one; how they train is in test_ddp_equality.py."""

import pytest
from torch import nn

from attnpool_backbones.engine.sharded_strategy import backbone_layers
from attnpool_backbones.registry import MODELS
from tests.backbones.families import FAMILIES, VARIANTS

NANO = [variant for variant in VARIANTS if variant.name.endswith('nano')]


class Detector(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize('variant', NANO, ids=lambda variant: variant.name)
def test_layers_of_the_backbone_are_sharded(variant):
    model = Detector(MODELS.build(dict(variant.config)))
    layers = backbone_layers(model)
    inside = [id(p) for layer in layers for p in layer.parameters()]
    # no layer lies in another one, and none is the head
    assert len(set(inside)) == len(inside)
    assert not set(inside) & {id(p) for p in model.head.parameters()}
    sizes = {id(p): p.numel() for p in model.backbone.parameters()}
    assert sum(sizes[i] for i in inside) > 0.9 * sum(sizes.values())
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in layers)
    assert largest < 0.5 * sum(sizes.values())


def test_every_family_is_tried():
    assert {variant.config['type'] for variant in NANO} == set(FAMILIES)


def test_other_backbones_are_refused():
    with pytest.raises(TypeError, match='layer_prefixes.*Linear'):
        backbone_layers(Detector(nn.Linear(2, 2)))
