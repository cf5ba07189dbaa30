"""The dense contract: what every backbone of this package takes, gives and promises."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.model import initialize
from torch import Tensor, nn
from torch.nn import functional

from attnpool_backbones.backbones.choices import resolve_arch, resolve_out_indices
from attnpool_backbones.backbones.training_parts import TrainingParts
from attnpool_backbones.checkpoints import load_pretrained
from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.checkpoints.loading import DEPLOYED, require_same_form
from attnpool_backbones.config_types import is_pretrained
from attnpool_backbones.layers.activation_checkpointing import checkpoint_block
from attnpool_backbones.ops.layout import contiguous_map, in_format
from attnpool_backbones.ops.product import is_convolution_chosen

# Also under mmdet's and mmseg's own tools every checkpoint is read by the one safe reader.
open_door()

MIN_TRUNK_SIZE = 32
"""Smallest height and width that a trunk computes with, in pixels."""


class Stage(nn.Module):
    """Blocks of one resolution, after an optional downsampling layer.

    Args:
        blocks: The blocks, in order.
        downsample: What brings the previous stage's map to this stage's resolution and width.
            Default: nothing (the first block does it).
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None = None):
        super().__init__()
        self.downsample = nn.Identity() if downsample is None else downsample
        self.blocks = nn.ModuleList(blocks)


class DenseBackbone(TrainingParts):
    """Base of all backbones: images in, a tuple of feature maps out.

    A subclass has the class attributes ``Arch`` (a dataclass: the numbers that make a variant) and
    ``archs`` (the table of named variants). Its constructor calls :meth:`choose_outputs`, sets
    ``stem`` and its trunk, and calls :meth:`finish_init` at its end. A hierarchical trunk is
    ``stages``, a list of :class:`Stage`; a columnar one is ``blocks``, a list of equal blocks, each
    of which counts as a stage of its own.

    Promises, tested over all variants by ``tests/backbones/test_contract.py``:

    - an input B, 3, H, W, square or not, divisible or not, gives one map
      B, ``out_channels[k]``, ceil(H / ``out_strides[k]``), ceil(W / ``out_strides[k]``) for each
      entry k of ``out_indices``, contiguous in NCHW order whatever the trunk works in; sides below
      32 pixels are padded for the trunk, and the maps cropped back;
    - no parameter that the outputs do not depend on: stages after the last output are not built;
    - ``frozen_stages`` freezes exactly what it says, in training mode too.

    Args:
        arch: Name of a variant or a mapping with the fields of ``Arch``.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages
            (columnar: blocks). Frozen parts have no gradients and stay in eval mode.
        norm_eval: Keeps the running statistics of all BatchNorm layers fixed in training.
        with_cp: Activation checkpointing of every block: less memory, one more forward pass.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` takes an official or own
            checkpoint as it is (see :mod:`attnpool_backbones.checkpoints`). A list may have
            initialisers of mmengine, too; checkpoints are loaded last, in order.

    Raises:
        ValueError: An unknown ``arch``, ``out_indices`` or ``frozen_stages``; the message lists
            what is possible.
    """

    Arch: ClassVar[type]
    archs: ClassVar[Mapping[str, Any]]
    trunk: ClassVar[str] = 'stages'
    """Name of the module list of stages: ``stages``, or ``blocks`` in a columnar trunk."""
    memory_format: ClassVar[torch.memory_format | None] = None
    """Layout that the stem is given the images in. None: as they come."""
    added: ClassVar[tuple[str, ...]] = ('out_norms.',)
    """Starts of the names of parameters that no published model has, so that no file lacks them."""

    depth: int
    """Stages (columnar: blocks) of the variant, built or not."""
    out_indices: tuple[int, ...]
    """Stages (columnar: blocks) whose maps are returned, 0-based."""
    out_channels: tuple[int, ...]
    out_strides: tuple[int, ...]

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.arch = self.resolve_arch(arch)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

    @classmethod
    def resolve_arch(cls, arch: str | Mapping[str, Any]) -> Any:
        """Returns the ``Arch`` of a name or of a mapping; see :func:`resolve_arch`."""
        return resolve_arch(arch, cls.Arch, cls.archs, cls.__name__)

    def choose_outputs(
        self, out_indices: int | Sequence[int], channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        """Sets ``depth``, ``out_indices``, ``out_channels`` and ``out_strides``.

        Args:
            out_indices: Stages (columnar: blocks) whose maps are returned, ascending, 0-based;
                negative ones count from the end.
            channels: Of each stage (columnar: block) of the variant.
            strides: Likewise.

        Raises:
            ValueError: ``out_indices`` are out of range, repeated, unsorted or empty.
        """
        self.depth = len(channels)
        self.out_indices = resolve_out_indices(out_indices, self.depth, type(self).__name__)
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.out_strides = tuple(strides[i] for i in self.out_indices)

    def finish_init(self) -> None:
        """Ends a subclass's constructor: checks ``frozen_stages`` and freezes."""
        is_convolution_chosen()  # measured here: a compiler could not
        depth = len(getattr(self, self.trunk))
        if not -1 <= self.frozen_stages <= depth:
            raise ValueError(
                f'frozen_stages={self.frozen_stages} of {type(self).__name__} must be -1 '
                f'(nothing), 0 (the stem) or up to {depth} (the stem and all built stages)'
            )
        self._freeze()

    # ------------------------------------------------------------------ forward

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of ``out_indices``.

        Args:
            x: Images, B, 3, H, W.

        Returns:
            One map B, ``out_channels[k]``, ceil(H / ``out_strides[k]``), ceil(W /
            ``out_strides[k]``) for each entry k of ``out_indices``.

        Raises:
            ValueError: ``x`` is no batch of images, or empty.
        """
        return self.run_trunk(x, self.run_block)

    def run_trunk(
        self, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        """Runs stem, stages and output norms.

        Args:
            x: Images, B, 3, H, W.
            run: Called with each block and its input, returns its output.

        Returns:
            As :meth:`forward`.
        """
        self.check_input(x)
        height, width = x.shape[-2:]
        if min(height, width) < MIN_TRUNK_SIZE:
            # at the right and at the bottom, where batches are padded too
            missing = [max(MIN_TRUNK_SIZE - side, 0) for side in (width, height)]
            x = functional.pad(x, (0, missing[0], 0, missing[1]))
        image_size = x.shape[-2:]
        if self.memory_format is not None:
            x = in_format(x, self.memory_format)
        x = self.stem(x)
        outputs = []
        for index, (downsample, blocks) in enumerate(self.stage_modules()):
            if downsample is not None:
                x = downsample(x)
            for block in blocks:
                x = run(block, x)
            if index in self.out_indices:
                outputs.append(self.output(index, self.as_map(x, image_size)))
        if image_size == (height, width):
            return tuple(outputs)
        return tuple(
            y[..., : (height + stride - 1) // stride, : (width + stride - 1) // stride].contiguous()
            for y, stride in zip(outputs, self.out_strides, strict=True)
        )

    def stage_modules(self) -> list[tuple[nn.Module | None, Sequence[nn.Module]]]:
        """Returns what lowers the resolution (None: nothing, or a block) and the blocks, by stage.

        Only blocks are checkpointed by ``with_cp``.
        """
        if self.trunk == 'blocks':
            return [(None, (block,)) for block in self.blocks]
        return [(stage.downsample, stage.blocks) for stage in self.stages]

    def as_map(self, x: Tensor, image_size: Sequence[int]) -> Tensor:
        """Turns what a block returns into a map.

        Args:
            x: Output of a block.
            image_size: Height and width of the images, in pixels.

        Returns:
            Map B, C, H', W'.
        """
        return x

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError unless ``x`` is B, 3, H, W, and not empty."""
        shape = tuple(x.shape)
        if len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise ValueError(
                f'{type(self).__name__} takes images B, 3, H, W, none of these 0, not {shape}'
            )

    def run_block(self, block: nn.Module, *inputs) -> Any:
        """Calls a block, checkpointed if ``with_cp`` asks for it and gradients are wanted."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint_block(block, *inputs)
        return block(*inputs)

    def output(self, index: int, x: Tensor) -> Tensor:
        """Applies the output norm of a stage, if it has one (``out_norms``).

        Returns:
            A map in contiguous NCHW memory. mmcv's RoIAlign and other operators read their input
            as such without a check: a ``channels_last`` map would reach them scrambled.
        """
        norms = getattr(self, 'out_norms', None) or {}
        if str(index) in norms:
            x = norms[str(index)](x)
        return contiguous_map(x)

    # ------------------------------------------------------------------ weights

    def init_weights(self) -> None:
        """Does what ``init_cfg`` says; of a list, mmengine's initialisers first, then checkpoints.

        Without it nothing: random initialisation has happened in the constructor, as in plain
        torch.

        Raises:
            attnpool_backbones.checkpoints.CheckpointMismatch: Less than 90 % of the parameters
                are in the file.
        """
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        checkpoints = [config for config in configs if is_pretrained(config)]
        if not checkpoints:
            super().init_weights()
            return
        initialize(self, [config for config in configs if not is_pretrained(config)])
        for config in checkpoints:
            load_pretrained(self, **{k: v for k, v in config.items() if k != 'type'})
        self._is_init = True

    def is_unbuilt(self, name: str) -> bool:
        """Tells whether a checkpoint's name lies in a stage of the variant that no output needs."""
        trunk, _, rest = name.partition('.')
        index = rest.partition('.')[0]
        built = len(getattr(self, self.trunk))
        return trunk == self.trunk and index.isdigit() and built <= int(index) < self.depth

    def adapt_parameter(self, name: str, value: Tensor) -> Tensor | None:
        """Resizes a checkpoint's tensor whose shape is not the model's, if that makes sense.

        Args:
            name: Name in this model.
            value: The checkpoint's tensor.

        Returns:
            A tensor of the model's shape (e.g. an interpolated position table), or None.
        """
        return None

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rewrites tensors of a checkpoint that fit by shape, but not by what they mean here.

        Args:
            state_dict: The checkpoint's tensors by their names in this model.

        Returns:
            The entries that change, none by default.
        """
        return {}

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Folds what inference allows (layer scales, BatchNorm) into neighbouring weights.

        Every module of the backbone that has a method ``fold`` takes part. The backbone is in eval
        mode afterwards and computes the same maps. Its state dict is no longer that of training:
        a buffer ``deployed`` marks it, and only a deployed backbone loads it. Nothing is folded
        into layers with hooks (pruning, the old weight norm), adapters or parametrisations.
        """
        self.eval()
        for module in list(self.modules()):
            if hasattr(module, 'fold'):
                module.fold()
        self.register_buffer(DEPLOYED, torch.tensor(True))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        require_same_form(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
