import pytest

from attnpool_backbones.datasets.digit_scenes import generate


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """A few digit scenes of 96x64 pixels."""
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=8, val=5, size=(96, 64))
    return root
