"""What a command line asks for, before anything of it is built."""

from dataclasses import dataclass, field
from functools import cached_property

from mmengine.config import Config

from attnpool_backbones.launching.checkpoint_check import Shapes, stored_shapes

__all__ = ['RunPlan']


@dataclass
class RunPlan:
    """A config with every flag applied, and what the checks have to know besides.

    Args:
        cfg: The whole config; nothing changes it after this.
        splits: Which data sets are read, of ``'train'``, ``'val'`` and ``'test'``.
        starts: Whether the model starts from the files that its ``init_cfg`` names.
        checkpoint_option: The flag or setting that ``cfg.load_from`` comes from.
        whole_model: Whether ``cfg.load_from`` has to be of this very model, heads and all.
        max_bad: How many images may be left out, see
            :class:`~attnpool_backbones.engine.SkipBadDataHook`.
        notes: What the checks have to tell without ending the run.
        folders: What is written to, by flag.
        files: What is written, by flag.
    """

    cfg: Config
    splits: tuple[str, ...]
    starts: bool
    checkpoint_option: str
    whole_model: bool
    max_bad: int = 10
    notes: list[str] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @cached_property
    def stored_shapes(self) -> Shapes | None:
        """Names and shapes in ``cfg.load_from``, read once; None without one.

        Raises:
            CheckpointError: If the file is damaged, unsafe or something else.
        """
        path = self.cfg.get('load_from')
        return stored_shapes(path) if path else None
