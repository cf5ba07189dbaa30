"""Which heads and backbones a config for own data is put together from."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from attnpool_backbones.checkpoints.fetching import fetch, local_copy
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.config_types import is_pretrained

__all__ = [
    'HEADS',
    'Bases',
    'Head',
    'choose_bases',
    'download_weights',
    'find_backbones',
    'weights_at_hand',
]


@dataclass(frozen=True)
class Head:
    """A detector or segmentor without its backbone.

    Args:
        under: What a backbone's base calls it.
        base: Name of the file in ``configs/_base_/models``.
        slim: The same for backbones of nano size, None if there is none.
        masks: Whether objects need masks.
        segments: Whether it labels pixels, not objects.
    """

    under: str
    base: str
    slim: str | None = None
    masks: bool = False
    segments: bool = False


HEADS: dict[str, Head] = {
    'retinanet': Head('retinanet', 'retinanet_fpn'),
    'faster-rcnn': Head('rcnn', 'faster-rcnn_fpn', 'faster-rcnn_slim-fpn'),
    'mask-rcnn': Head('rcnn', 'mask-rcnn_fpn', 'mask-rcnn_slim-fpn', masks=True),
    'cascade-rcnn': Head('rcnn', 'cascade-rcnn_fpn'),
    'cascade-mask-rcnn': Head('rcnn', 'cascade-mask-rcnn_fpn', masks=True),
    'upernet': Head('upernet', 'upernet', 'upernet_slim', segments=True),
    'semantic-fpn': Head('semantic_fpn', 'semantic-fpn', segments=True),
}
"""What ``--head`` can say."""


@dataclass(frozen=True)
class Bases:
    """A backbone under a head.

    Args:
        backbone: Name of the file in ``configs/_base_/backbones``.
        head: Key of :data:`HEADS`.
        model: Name of the file in ``configs/_base_/models``.
        settings: What the backbone's base says about a model with this head.
    """

    backbone: str
    head: str
    model: str
    settings: Any

    @property
    def kind(self) -> Head:
        """What is known about the head."""
        return HEADS[self.head]

    @property
    def is_nano(self) -> bool:
        """Whether it is of the size for small images and no pretraining."""
        return self.backbone.endswith('-nano')


def find_backbones() -> list[str]:
    """Lists the names of backbones, as the files in ``configs/_base_/backbones``."""
    return sorted(file.stem for file in (config_root() / '_base_' / 'backbones').glob('*.py'))


def choose_bases(backbone: str, head: str) -> Bases:
    """Finds the bases of a backbone under a head.

    Args:
        backbone: Such as ``'caformer-s18'`` or ``'caformer_s18'``.
        head: Key of :data:`HEADS`.

    Raises:
        UserError: If one of them is not known, or they do not fit together.
    """
    names = find_backbones()
    name = backbone.lower().replace('_', '-')
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f'Did you mean {" or ".join(close)}? ' if close else ''
        raise UserError(f'--backbone {backbone}: not known. {hint}There are {", ".join(names)}')
    if head not in HEADS:
        close = difflib.get_close_matches(head, HEADS, n=1, cutoff=0.5)
        hint = f'Did you mean {close[0]}? ' if close else ''
        raise UserError(f'--head {head}: not known. {hint}There are {", ".join(HEADS)}')
    kind = HEADS[head]
    under = Config.fromfile(config_root() / '_base_' / 'backbones' / f'{name}.py').under
    model = kind.slim if name.endswith('-nano') else kind.base
    if kind.under not in under or model is None:
        able = [h for h, k in HEADS.items()
                if k.under in under and (k.slim or not name.endswith('-nano'))]  # fmt: skip
        raise UserError(f'--head {head}: {name} is made for {", ".join(able)}')
    return Bases(name, head, model, under[kind.under])


def weights_at_hand(bases: Bases) -> tuple[str | None, str | None]:
    """Finds the pretrained weights of a backbone on this machine.

    Returns:
        The file, None if it is not here; and where it comes from, None if the backbone has none.
    """
    source = _pretrained_source(bases)
    if source is None:
        return None, None
    name = source.rpartition('/')[2]
    places = [Path('checkpoints'), Path(torch.hub.get_dir(), 'checkpoints')]
    candidates = [Path(source), *(place / name for place in places)]
    if source.startswith(('http://', 'https://')):
        candidates.insert(1, local_copy(source))
    return next((str(file) for file in candidates if file.is_file()), None), source


def download_weights(bases: Bases) -> str:
    """Fetches the pretrained weights of a backbone, once, into torch's cache.

    Returns:
        The file.

    Raises:
        UserError: They have no address, or it cannot be reached.
    """
    source = _pretrained_source(bases) or ''
    if not source.startswith(('http://', 'https://')):
        where = f'; {source} has no address that a program can read' if source else ''
        raise UserError(
            f'--weights download: there is nothing to download for {bases.backbone}{where}. Name a '
            'file (--weights FILE) or start without (--weights none)'
        )
    fetch(source)
    return str(local_copy(source))


def _pretrained_source(bases: Bases) -> str | None:
    init = bases.settings.backbone.get('init_cfg') or {}
    return init.get('checkpoint') if is_pretrained(init) else None
