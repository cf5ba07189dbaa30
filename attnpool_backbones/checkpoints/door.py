"""Makes mmengine read every checkpoint through :func:`~.reading.read_content`.

mmengine asks one registry, by the beginning of an address, who reads a checkpoint: for
``load_from`` and resuming, for ``init_cfg`` of heads, detectors and foreign backbones, for testing
and for the inferencers. Its own readers unpickle what comes by ``http`` and whatever an environment
variable tells torch to trust. Importing this module puts one reader in place of all of them, the
way the registry offers. It is imported with mmengine's reader where this package is, see
:mod:`attnpool_backbones.door_opener`, and the configs of this package import it first of all.
"""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor

from attnpool_backbones.checkpoints.finite_bits import TypedMemory
from attnpool_backbones.checkpoints.finite_weights import require_finite_weights
from attnpool_backbones.checkpoints.matching import tensors_of
from attnpool_backbones.checkpoints.reading import explained, find_state_dict, read_content
from attnpool_backbones.checkpoints.wrapped_names import below, without_wrappers

__all__ = ['load_from_checked_file', 'open_door']

# As mmengine registers them: patterns of the beginning of an address. The empty one is for files.
_ADDRESSES = (
    '',
    'http://',
    'https://',
    'file://',
    'torchvision://',
    'modelzoo://',
    'open-mmlab://',
    'openmmlab://',
    'mmcls://',
    'pavi://',
    r'(\S+\:)?s3://',
    r'(\S+\:)?petrel://',
)
_PROGRAM = 'config'
"""Entry of ``meta`` that mmengine runs as a config when it resumes; its own files have none, those
of mmcv 1.x do."""
_CONFIG = 'cfg'
"""Entry of ``meta``, and of the message hub, that inferencers without a config run as one."""
_REFUSAL = """raise ValueError(
    'the config inside of the weights is a program and is not run: give a config, too, as in '
    'DetInferencer(model="CONFIG.py", weights=...); the work folder of a training has its own'
)
"""
"""Stands for it. Has no name of the file: what is between double braces mmengine replaces."""
_WEIGHTS = 'state_dict'


def load_from_checked_file(filename: str, map_location: Any = None) -> Any:
    """Returns the content of a checkpoint, as mmengine expects it of a reader.

    Args:
        filename: As :func:`~.reading.read_checkpoint` takes it.
        map_location: Device of the tensors. Default: the CPU, wherever they were.

    Raises:
        FileNotFoundError: No such file.
        UnreachableCheckpoint: The address does not answer.
        CheckpointError: The file is no checkpoint, not a safe or whole one, or its weights are not
            all finite numbers.
    """
    filename = str(filename)
    finite: set[TypedMemory] = set()
    content = read_content(filename, 'cpu' if map_location is None else map_location, finite)
    if not isinstance(content, dict):
        return content
    if not any(isinstance(value, Tensor) for value in content.values()):
        # under a usual key, but not the one under which mmengine looks
        elsewhere = find_state_dict(content)
        if elsewhere:
            content.setdefault(_WEIGHTS, elsewhere)
    weights = content.get(_WEIGHTS, content)
    with explained(filename):
        if isinstance(weights, dict):
            require_finite_weights(tensors_of(weights), finite=finite)
            if weights is not content:
                content[_WEIGHTS] = _renamed(weights)
    _take_programs(content, filename)
    if filename.startswith('mmcls://'):
        return {_WEIGHTS: below(content.get(_WEIGHTS, content), 'backbone.')}
    return content


def _take_programs(content: dict, filename: str) -> None:
    """Takes what mmengine would run out of a checkpoint; one that tells so stands for a config."""
    hub = content.get('message_hub')
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    found = isinstance(info, dict) and info.pop(_CONFIG, None) is not None
    meta = content.get('meta')
    if not isinstance(meta, dict):
        return
    if meta.pop(_PROGRAM, None) is not None:
        print_log(f'{filename}: its meta.config, a program, is not run', 'current', logging.INFO)
    if found or _CONFIG in meta:
        meta[_CONFIG] = _REFUSAL


def _renamed(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns weights by names without wrappers; the same object if there are none."""
    tensors = tensors_of(weights)
    # `module.` stays: mmengine takes it off where it stands first, and models may be named so.
    renamed = without_wrappers(tensors, module=False)
    if renamed.keys() == tensors.keys():
        return weights
    changed = type(weights)(renamed)
    if hasattr(weights, '_metadata'):
        changed._metadata = {}
    return changed


def open_door() -> None:
    """Registers the reader with mmengine, for all addresses; may be called any number of times."""
    CheckpointLoader.register_scheme(list(_ADDRESSES), load_from_checked_file, force=True)


open_door()
