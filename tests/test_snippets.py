"""The parts of configs that README and docs show are those of models that can be built."""

import ast
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.config_models import build_config_model

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

ROOT = Path(__file__).parents[1]
CONFIGS = {
    'README.md': 'patchconvnet/mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py',
    'docs/attention_pooling.md': 'baselines/mask-rcnn_resnet50_fpn_1x_coco.py',
    'docs/classification.md': 'classification/sge-resnet50_in1k.py',
}
"""Of each page the config that its `model = dict(...)` changes."""
REST = {
    'decode_head': dict(
        in_channels=[8, 8], in_index=[0, 1], channels=8, num_classes=3, _scope_='mmseg'
    ),
    'plugins': dict(type='ResNet', depth=50, _scope_='mmdet'),
}
"""What the page leaves out."""


def snippets(page: str) -> list[tuple[str, str, str]]:
    """Returns page, name and value of what its Python code assigns to models and their parts."""
    found = []
    for block in (ROOT / page).read_text(encoding='utf-8').split('```python\n')[1:]:
        code = block.partition('```')[0]
        for node in ast.parse(code).body:
            if isinstance(node, ast.Assign):
                name = node.targets[0].id
                if name in ('model', 'backbone', 'head', *REST):
                    found.append((page, name, ast.unparse(node.value)))
    return found


SNIPPETS = [snippet for page in CONFIGS for snippet in snippets(page)]


def test_there_are_snippets() -> None:
    assert {page for page, *_ in SNIPPETS} == set(CONFIGS) and len(SNIPPETS) >= 8
    assert {name for _, name, _ in SNIPPETS} == {'model', 'backbone', 'head', *REST}


@pytest.mark.parametrize(
    ('page', 'name', 'text'), SNIPPETS, ids=[f'{s[0]}-{s[1]}-{i}' for i, s in enumerate(SNIPPETS)]
)
def test_snippet_is_of_a_model(page: str, name: str, text: str) -> None:
    value = eval(text, dict(dict=dict))
    if name == 'model' and 'data_preprocessor' not in value:
        cfg = Config.fromfile(config_root() / CONFIGS[page])
        cfg.merge_from_dict(dict(model=value))
        model = build_config_model(cfg, 'meta')
        features = getattr(model, 'extract_feat', model.backbone)
        maps = features(torch.zeros(1, 3, 64, 96, device='meta'))
        assert all(y.shape[0] == 1 for y in maps)
        return
    if name == 'plugins':
        value = dict(REST[name], plugins=value)
    elif name == 'model':
        value = dict(value, _scope_='mmdet')
    else:
        value = dict(value, **REST.get(name, {}))
    with torch.device('meta'):
        assert next(MODELS.build(value).parameters()).is_meta
