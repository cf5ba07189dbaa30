"""What a user says about own data, and where its run is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpool_backbones.command_line import UserError
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.own_data.bases import Bases

__all__ = ['Request', 'places_of', 'require_same_folder']


@dataclass(frozen=True)
class Request:
    """What a user says about own data; None: chosen here.

    Args:
        folder: With images and labels.
        backbone: Name of a backbone.
        head: Name of a detector or segmentor.
        format: Name of the labels' format.
        classes: Names, or a file with them.
        ignored: Values of mask pixels that belong to no class.
        val_share: Of the images that go to validation where the folder has no splits.
        group: Pattern of file names; images of one group stay in one split.
        split_seed: Another number gives other splits.
        work_dir: Folder of the run.
        weights: Pretrained weights, ``'none'`` for a start from scratch.
        epochs: Passes over the training images.
        batch: Images of a step.
        lr: Learning rate.
        size: Pixels of the longer side of resized images.
        freeze: Stages of the backbone that are not trained.
        workers: Processes that read images.
        cfg_options: Settings of the config to override, by dotted key; they are not written.
    """

    folder: str
    backbone: str
    head: str
    format: str | None = None
    classes: Sequence[str] | None = None
    ignored: Sequence[int] = ()
    val_share: float = 0.2
    group: str | None = None
    split_seed: int = 0
    work_dir: str | None = None
    weights: str | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    size: int | None = None
    freeze: int | None = None
    workers: int = 2
    cfg_options: dict[str, Any] | None = None


def places_of(request: Request, bases: Bases) -> tuple[Path, Path]:
    """Returns the folder of the run that a request asks for, and the config beside it."""
    name = f'{Path(request.folder).resolve().name}_{bases.head}_{bases.backbone}'
    run = Path(request.work_dir or Path('work_dirs', name))
    return run, run.parent / f'{run.name}.py'


def require_same_folder(config: Path, folder: str) -> None:
    """Makes sure that a run which is to go on was begun with the folder that is named.

    Args:
        config: Of the run.
        folder: As typed.

    Raises:
        UserError: If the data of the config is elsewhere.
    """
    root = load_config(str(config)).get('data_root')
    if root is not None and Path(root).resolve() != Path(folder).resolve():
        raise UserError(
            f'--resume: {config} trains on {root}, not on {Path(folder).resolve()}; name that '
            'folder, or another --work-dir'
        )
