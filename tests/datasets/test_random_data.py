"""Random damage to images, annotations and configs: a clear error or a right result.

The check of a data set never fails, and what it has nothing to say about can be trained on.
"""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmdet.registry import DATASETS

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.datasets.verification import verify
from attnpool_backbones.launching import launch
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_keys import RUNNER_KEYS, require_known_keys
from tests.datasets.test_check_and_training import coco, detection
from tests.launching.tiny_scenes import arguments, write_config

FAST, SLOW = 45, 500
"""Cases of each kind, in the short tests and in the long ones."""
SLOW_VALUES = 2000
"""Values of configs in the long tests: there are more places for them than in annotations."""

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 100),
    st.sampled_from([10**400, -1, 0, 0.5, float('inf'), float('nan'), '', 'a', '1', [], {}]),
    st.floats(-10, 100),
    st.lists(st.one_of(st.integers(-5, 70), st.floats(-5, 70), st.none()), max_size=8),
    st.lists(st.lists(st.integers(-5, 70), max_size=8), max_size=2),
    st.fixed_dictionaries(
        dict(
            size=st.one_of(st.just([48, 64]), st.lists(st.integers(0, 70), max_size=3)),
            counts=st.one_of(st.text(max_size=8), st.lists(st.integers(0, 3072), max_size=4)),
        )
    ),
)
FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': (
        'id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation', 'ignore',
    ),
    'categories': ('id', 'name'),
}  # fmt: skip


@st.composite
def damages(draw: Callable) -> tuple[str, int, str, Any]:
    """A list, a number in it, a field, and what to put there; ... takes the field away."""
    name = draw(st.sampled_from(sorted(FIELDS)))
    field = draw(st.sampled_from(FIELDS[name]))
    value = draw(st.one_of(st.just(...), VALUES))
    return name, draw(st.integers(0, 3)), field, value


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('random')
    for number in (1, 2):
        Image.new('RGB', (64, 48), (90, 60, 30)).save(folder / f'{number}.png')
    return folder


def many(count: int) -> Callable:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


def annotations_hold(root: Path, faults: list[tuple[str, int, str, Any]]) -> None:
    content = coco()
    for name, number, field, value in faults:
        entry = content[name][number % len(content[name])]
        if value is ...:
            entry.pop(field, None)
        else:
            entry[field] = value
    for name in ('train', 'val'):
        (root / f'{name}.json').write_text(json.dumps(content))
    cfg = detection(root)
    if verify(cfg, ['train', 'val']).problems:
        return
    for split in ('train', 'val'):
        dataset = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, _scope_='mmdet'))
        assert [dataset[i] for i in range(len(dataset))]


def image_holds(root: Path, kind: str, cut: int, changes: list[tuple[int, int]]) -> None:
    content = coco()
    for name in ('train', 'val'):
        (root / f'{name}.json').write_text(json.dumps(content))
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    )
    path = root / '2.png'
    picture.save(path, format=kind)
    raw = bytearray(path.read_bytes())
    for place, value in changes:
        raw[place % len(raw)] = value
    path.write_bytes(bytes(raw[: len(raw) - cut]) if cut else bytes(raw))
    cfg = detection(root)
    try:
        if verify(cfg, ['train']).problems:
            return
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, _scope_='mmdet'))
        assert dataset[1]['inputs'].shape == (3, 64, 64)
    finally:
        Image.new('RGB', (64, 48), (90, 60, 30)).save(path)


def config_holds(key: str, place: int, letter: str) -> None:
    place %= len(key)
    wrong = key[:place] + letter + key[place + 1 :]
    cfg = Config(dict(default_scope='mmdet', **{wrong: dict(a=1)}))
    # names that begin so are private to a config
    if wrong in RUNNER_KEYS or wrong == 'default_scope' or wrong.startswith('_'):
        return
    with pytest.raises(UserError, match=f'did you mean {key}'):
        require_known_keys(cfg)


@pytest.fixture(scope='module')
def whole_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a training that could start."""
    folder = tmp_path_factory.mktemp('scenes')
    generate(folder / 'digit_scenes', train=3, val=1, size=64)
    return load_config(str(write_config(folder, 'det', folder / 'digit_scenes')))


def places(value: Any, key: str = '') -> list[str]:
    """Lists the dotted keys of what a run reads of a config, however deep."""
    found = [key] if key else []
    if isinstance(value, dict):
        for name, inner in value.items():
            # scope and work folder are seen to when a config is read, which is done here
            if key or (name in RUNNER_KEYS and name not in ('default_scope', 'work_dir')):
                found += places(inner, f'{key}.{name}' if key else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, f'{key}.{index}')
    return found


def value_holds(whole: Config, number: int, value: Any, folder: Path) -> None:
    keys = places(whole._cfg_dict)
    key = keys[number % len(keys)]
    cfg = copy.deepcopy(whole)
    *path, last = key.split('.')
    target = cfg._cfg_dict
    for name in path:
        target = target[int(name) if isinstance(target, list) else name]
    if value is ... and isinstance(target, dict):
        target.pop(last)
    else:
        target[int(last) if isinstance(target, list) else last] = None if value is ... else value
    cfg.work_dir = str(folder / 'run')
    args = arguments(folder / 'x.py', work_dir=None)
    try:
        with (
            patch.object(launch, 'load_config', lambda *_: cfg),
            patch.object(launch, 'run_training'),
        ):
            launch.train(args)
    except UserError as error:
        assert str(error)


ANNOTATIONS = st.lists(damages(), min_size=1, max_size=3)
FORMATS = st.sampled_from(['PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP', 'GIF'])
CHANGES = st.lists(st.tuples(st.integers(0, 20000), st.integers(0, 255)), max_size=4)
CUTS = st.sampled_from([0, 0, 1, 7, 100, 2000])
# of shorter names one letter changes too much to tell which was meant
KEYS = st.sampled_from([k for k in RUNNER_KEYS if len(k) >= 9 and k != 'default_scope'])


@pytest.mark.parametrize('count', [FAST, pytest.param(SLOW, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings('ignore')
def test_annotations(count: int, root: Path) -> None:
    @many(count)
    @given(ANNOTATIONS)
    def holds(faults: list) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            annotations_hold(root, copy.deepcopy(faults))

    holds()


@pytest.mark.parametrize('count', [FAST, pytest.param(SLOW, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings('ignore')
def test_images(count: int, root: Path) -> None:
    @many(count)
    @given(FORMATS, CUTS, CHANGES)
    def holds(kind: str, cut: int, changes: list) -> None:
        image_holds(root, kind, cut, changes)

    holds()


@pytest.mark.parametrize('count', [FAST, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_configs(count: int) -> None:
    @many(count)
    @given(KEYS, st.integers(0, 30), st.sampled_from('aeinrtz_'))
    def holds(key: str, place: int, letter: str) -> None:
        config_holds(key, place, letter)

    holds()


@pytest.mark.parametrize('count', [FAST, pytest.param(SLOW_VALUES, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings('ignore')
def test_values_of_configs(
    count: int, whole_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands anywhere in a config: it is used, or one message tells."""
    monkeypatch.chdir(tmp_path)  # for work folders of any name

    @many(count)
    @given(st.integers(0, 10**6), st.one_of(st.just(...), VALUES))
    def holds(number: int, value: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            value_holds(whole_config, number, copy.deepcopy(value), tmp_path)

    holds()
