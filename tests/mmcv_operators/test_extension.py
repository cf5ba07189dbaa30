"""What answers as `mmcv._ext`, without mmcv's own functions around it."""

import pytest
import torch

from attnpool_backbones.mmcv_operators import extension, served


def test_what_is_missing_is_named_with_its_cure():
    with pytest.raises(extension.MissingOperator, match='knn_forward.*OPS=compiled.*mmcv==2.1.0'):
        extension.knn_forward(torch.zeros(1), k=3)
    with pytest.raises(AttributeError, match='_private'):
        extension._private  # noqa: B018


def test_who_serves_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(served, 'print_log', lambda text, logger: said.append((text, logger)))
    served._say_who_serves.cache_clear()
    for _ in range(2):
        extension.nms(torch.rand(3, 4), torch.rand(3), iou_threshold=0.5, offset=0)
    assert len(said) == 1
    assert 'plain torch, by attnpool_backbones' in said[0][0]
    assert said[0][1] == 'current'


@pytest.mark.parametrize('name', ['get_compiler_version', 'get_compiling_cuda_version'])
def test_reports_of_the_environment_get_an_answer(name):
    assert getattr(extension, name)().startswith('none')
