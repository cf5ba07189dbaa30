"""Exported files predict what their models predict, for every family under every head."""

import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from attnpool_backbones.export.exporting import check, describe, noise
from attnpool_backbones.export.graph import Sizes, build_graph, fixed_because, trace
from attnpool_backbones.export.onnx_file import to_onnx
from attnpool_backbones.inference.exported_model import ExportedModel
from attnpool_backbones.inference.loading import predictor_of
from attnpool_backbones.inference.onnx_engine import OnnxEngine
from attnpool_backbones.inference.predictor import Predictor
from tests.export.models import FAMILIES, HEADS, classes_of, nano_config, untrained

FAST = [('caformer', 'mask-rcnn'), ('patchconvnet', 'semantic-fpn')]


def rows():
    for family in FAMILIES:
        for head in HEADS:
            marks = [] if (family, head) in FAST else [pytest.mark.slow]
            yield pytest.param(family, head, marks=marks)


@pytest.mark.parametrize('family, head', rows())
def test_file_predicts_what_the_model_does(family, head):
    cfg = nano_config(family, head)
    model = untrained(cfg)
    classes = classes_of(model)
    is_fixed = fixed_because(model) is not None
    assert is_fixed == (family == 'swin')
    sizes = Sizes(96, 128, batch=1 if is_fixed else 2, fixed=is_fixed)
    graph = build_graph(model, cfg)
    facts = describe(model, cfg, classes, sizes, head)
    engine = OnnxEngine(to_onnx(trace(graph, sizes), graph.outputs, facts))
    reference = predictor_of(model, cfg, classes, 'cpu')
    found = check(reference, engine, facts, noise(sizes))
    assert found.images == (1 if is_fixed else 3)
    assert found.parted == 0, found
    assert reference.is_detector == (found.objects > 0), found
    if not is_fixed:
        images = [noise(sizes)[0]] * 3
        exported = Predictor(ExportedModel(engine, facts), facts.preparation, classes, None,
                             reference.is_detector, 'cpu')  # fmt: skip
        one, *_, last = exported(images, batch=3, score=0.0)
        assert np.allclose(*(getattr(p, 'boxes', getattr(p, 'label_map', None))
                             for p in (one, last)), atol=1e-3)  # fmt: skip
