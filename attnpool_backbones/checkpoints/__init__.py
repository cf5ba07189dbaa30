"""Checkpoints: reads, recognises, converts and loads weights of any known origin."""

from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from attnpool_backbones.checkpoints.converting import convert_file
from attnpool_backbones.checkpoints.errors import (
    CheckpointError,
    CheckpointMismatch,
    DamagedCheckpoint,
    MissingCheckpoint,
    NoCheckpoint,
    UnreachableCheckpoint,
    UnsafeCheckpoint,
)
from attnpool_backbones.checkpoints.known_formats import FORMATS, recognise
from attnpool_backbones.checkpoints.loading import load_pretrained
from attnpool_backbones.checkpoints.reading import read_checkpoint
from attnpool_backbones.checkpoints.report import ConvertReport, LoadReport

__all__ = [
    'FORMATS',
    'CheckpointError',
    'CheckpointFormat',
    'CheckpointMismatch',
    'ConvertReport',
    'DamagedCheckpoint',
    'LoadReport',
    'MissingCheckpoint',
    'NoCheckpoint',
    'UnreachableCheckpoint',
    'UnsafeCheckpoint',
    'convert_file',
    'load_pretrained',
    'read_checkpoint',
    'recognise',
]
