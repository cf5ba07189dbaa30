"""What the path of a config says: family, head, backbone, schedule and data set.

``FAMILY/HEAD_BACKBONE_[NECK_]SCHEDULE_DATASET.py``: a detector's schedule follows ``fpn_``, a
segmentor's is ``8xb2-160k`` (eight GPUs, two images each, 160k iterations), and the nano sizes on
digit scenes have ``slim`` heads and one schedule.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.records import DATA_SETS, DataSet

__all__ = ['HEADS', 'ConfigName', 'config_name', 'families', 'list_configs']

HEADS = {
    'retinanet': 'RetinaNet',
    'faster-rcnn': 'Faster R-CNN',
    'mask-rcnn': 'Mask R-CNN',
    'cascade-rcnn': 'Cascade R-CNN',
    'cascade-mask-rcnn': 'Cascade Mask R-CNN',
    'upernet': 'UperNet',
    'semantic-fpn': 'Semantic FPN',
}
"""Head, as in a config's name -> what people call it."""
_SEGMENTORS = ('upernet', 'semantic-fpn')
_NAME = re.compile(
    rf'(?P<head>{"|".join(HEADS)})_(?P<backbone>[a-z0-9-]+)_'
    r'(?:fpn_(?P<epochs>[a-z0-9-]+)|8xb\d+-(?P<iterations>\d+k)|slim(?:-fpn)?)_'
    rf'(?P<data>{"|".join(map(re.escape, DATA_SETS))})'
)


@dataclass(frozen=True, kw_only=True)
class ConfigName:
    """A config by its path."""

    path: str
    """Relative to the folder of all configs."""
    family: str
    """Folder in ``configs/``."""
    head: str
    """A key of :data:`HEADS`."""
    backbone: str
    """E.g. ``'poolformer-s12'``; ``-in1k-pre``: with weights of ImageNet-1k where the config
    without it has those of a larger data set; ``-last``: its last map alone is read."""
    schedule: str
    """E.g. ``'1x'``, ``'ms-3x'`` or ``'160k'``; empty for digit scenes, which have only one."""
    data_set: DataSet

    @property
    def stem(self) -> str:
        """Name of the file without its ending, which is the name of the model in the metafile."""
        return Path(self.path).stem

    @property
    def segments(self) -> bool:
        """Whether this is semantic segmentation, done by mmseg; otherwise mmdet."""
        return self.head in _SEGMENTORS

    @property
    def is_nano(self) -> bool:
        """Whether the backbone has the size for digit scenes."""
        return self.backbone.endswith('-nano')


def config_name(path: str | Path) -> ConfigName:
    """Reads a path.

    Args:
        path: Of a config; the last folder is the family.

    Returns:
        What it says.

    Raises:
        UserError: The name does not have the form of this package's names.
    """
    path = Path(path)
    match = _NAME.fullmatch(path.stem)
    if match is None:
        raise UserError(
            f'{path.name} is no name of a config; it has to be HEAD_BACKBONE_fpn_SCHEDULE_DATASET, '
            'HEAD_BACKBONE_8xbN-SCHEDULE_DATASET or HEAD_BACKBONE_slim[-fpn]_DATASET, where '
            f'HEAD is one of {", ".join(HEADS)} and DATASET ends with one of '
            f'{", ".join(DATA_SETS)}'
        )
    return ConfigName(
        path=f'{path.parent.name}/{path.name}',
        family=path.parent.name,
        head=match['head'],
        backbone=match['backbone'],
        schedule=match['epochs'] or match['iterations'] or '',
        data_set=DATA_SETS[match['data']],
    )


def families(configs: Path) -> tuple[str, ...]:
    """Returns the folders that ``model-index.yml`` beside the configs names, in its order.

    Args:
        configs: Folder of all configs.

    Raises:
        UserError: That file is missing.
    """
    path = configs.parent / 'model-index.yml'
    try:
        index = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{path}, which names the families, cannot be read: {error}') from error
    return tuple(Path(entry).parent.name for entry in index['Import'])


def list_configs(configs: Path) -> list[ConfigName]:
    """Returns all configs, family by family, each by name.

    Args:
        configs: Folder of all configs, e.g. :func:`~attnpool_backbones.config_files.config_root`.

    Raises:
        UserError: A file whose name is not one of a config.
    """
    return [
        config_name(path)
        for family in families(configs)
        for path in sorted((configs / family).glob('*.py'))
    ]
