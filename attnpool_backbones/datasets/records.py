"""What is said about each data set that the configs train on, once."""

from collections.abc import Mapping
from dataclasses import dataclass

from attnpool_backbones.datasets.digit_rendering import CLASSES

__all__ = ['ADE20K', 'COCO', 'DATA_SETS', 'DIGIT_SCENES', 'DataSet']


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """A data set as configs, converters, tables and messages speak of it."""

    suffix: str
    """Last part of the names of its configs."""
    name: str
    """In tables and metafiles."""
    measures: str
    """What is measured on it, for the titles of tables."""
    images: Mapping[str, int]
    """Number of images by split, as the official archives have them."""
    classes: int
    input_size: tuple[int, int]
    """Height and width of the image whose multiply-accumulates are counted; published ones are of
    this size, where they are stated."""
    pattern: str
    """Regular expression for the type or a path of a data set in a config."""
    how_to_get: str
    """For someone who lacks it."""

    @property
    def title(self) -> str:
        """Title of a table of its results."""
        return f'{self.name}: {self.measures}'


COCO = DataSet(
    suffix='coco',
    name='COCO',
    measures='box and mask AP',
    images={'train': 118287, 'val': 5000},
    classes=80,
    input_size=(800, 1280),
    pattern=r'\bcoco/|instances_(train|val)2017\.json',
    how_to_get='COCO 2017 comes from https://cocodataset.org/#download; in a clone `python tools/'
    'dataset_converters/coco2017.py DOWNLOADS` unpacks it as data/coco/'
    '{annotations,train2017,val2017}, with annotations/instances_{train,val}2017.json.',
)
ADE20K = DataSet(
    suffix='ade20k-512x512',
    name='ADE20K',
    measures='mIoU',
    images={'training': 20210, 'validation': 2000},
    classes=150,
    input_size=(512, 2048),
    pattern=r'ADE20K|ADEChallenge',
    how_to_get='ADE20k comes from http://sceneparsing.csail.mit.edu; in a clone `python tools/'
    'dataset_converters/ade20k.py DOWNLOADS` unpacks it as data/ade/'
    'ADEChallengeData2016/{images,annotations}/{training,validation}.',
)
DIGIT_SCENES = DataSet(
    suffix='digit-scenes',
    name='Digit scenes',
    measures='box and mask AP, mIoU',
    images={'train': 1200, 'val': 200},
    classes=len(CLASSES),
    input_size=(192, 192),
    pattern=r'digit',
    how_to_get='The digit scenes are made by `attnpool quickstart`, or in a clone by `python '
    'tools/dataset_converters/make_digit_scenes.py`.',
)
DATA_SETS: Mapping[str, DataSet] = {each.suffix: each for each in (COCO, ADE20K, DIGIT_SCENES)}
"""Ending of a config's name -> its data set."""
