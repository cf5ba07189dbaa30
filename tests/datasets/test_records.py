"""What is said about the data sets fits the configs and the documentation."""

import pytest
from mmengine.config import Config

from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.records import DATA_SETS, DIGIT_SCENES
from attnpool_backbones.zoo.config_names import list_configs


@pytest.mark.parametrize('data_set', DATA_SETS.values(), ids=list(DATA_SETS))
@pytest.mark.parametrize('segments', [False, True], ids=['detection', 'segmentation'])
def test_models_have_its_classes(data_set, segments):
    own = [c for c in list_configs(config_root()) if c.data_set == data_set]
    configs = [config for config in own if config.segments == segments]
    assert own
    # "other" is a class of its own in segmentation only
    expected = data_set.classes + (segments and data_set == DIGIT_SCENES)
    for head in {config.head for config in configs}:
        path = next(config.path for config in configs if config.head == head)
        assert set(class_counts(Config.fromfile(config_root() / path).model)) == {expected}, path


def class_counts(part) -> list[int]:
    """Returns every ``num_classes`` in a model's config."""
    if isinstance(part, dict):
        own = [part['num_classes']] if 'num_classes' in part else []
        return own + [n for value in part.values() for n in class_counts(value)]
    if isinstance(part, (list, tuple)):
        return [n for value in part for n in class_counts(value)]
    return []


@pytest.mark.parametrize('data_set', DATA_SETS.values(), ids=list(DATA_SETS))
def test_the_documentation_says_the_same(data_set, repo_root):
    page = (repo_root / 'docs' / 'data.md').read_text()
    images = ' / '.join(str(count) for count in data_set.images.values())
    assert f'| {images} | {data_set.classes} |' in page
