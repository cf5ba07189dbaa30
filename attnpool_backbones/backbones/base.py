"""The dense contract: what every backbone of this package takes, gives and promises."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.checkpoints import load_pretrained
from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.checkpoints.loading import DEPLOYED, require_same_form
from attnpool_backbones.layers.checkpointing import checkpoint_block

# Also under mmdet's and mmseg's own tools every checkpoint is read by the one safe reader.
open_door()

#: Smallest height and width of an input, in pixels.
MIN_INPUT_SIZE = 32


def taps_of_depth(depth: int) -> tuple[int, ...]:
    """Returns the blocks at 1/3, 1/2, 2/3 and 1 of a column's depth (0-based, as XCiT taps it)."""
    return tuple(sorted({max(int(depth * f + 0.5), 1) - 1 for f in (1 / 3, 1 / 2, 2 / 3, 1)}))


class Stage(nn.Module):
    """Blocks of one resolution, behind an optional downsampling layer.

    Args:
        blocks: The blocks, in order.
        downsample: What brings the previous stage's map to this stage's resolution and width.
            Default: nothing (the first block does it).
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None = None):
        super().__init__()
        self.downsample = nn.Identity() if downsample is None else downsample
        self.blocks = nn.ModuleList(blocks)


class DenseBackbone(BaseModule):
    """Base of all backbones: images in, a tuple of feature maps out.

    A subclass has the class attributes ``Arch`` (a dataclass: the numbers that make a variant) and
    ``archs`` (the table of named variants), sets ``stem``, its trunk, ``out_channels`` and
    ``out_strides`` in the constructor and calls :meth:`finish_init` at its end. A hierarchical
    trunk is ``stages``, a list of :class:`Stage`; a columnar one is ``blocks``, a list of equal
    blocks, each of which counts as a stage of its own.

    Promises, tested over all variants by ``tests/backbones/test_contract.py``:

    - an input B, 3, H, W with H, W >= 32, square or not, divisible or not, gives one map
      B, ``out_channels[k]``, ceil(H / ``out_strides[k]``), ceil(W / ``out_strides[k]``) for each
      entry k of ``out_indices``, contiguous in NCHW order whatever the trunk works in;
    - no parameter that the outputs do not depend on: stages behind the last output are not built;
    - ``frozen_stages`` freezes exactly what it says, in training mode too.

    Args:
        arch: Name of a variant or a mapping with the fields of ``Arch``.
        out_indices: Stages (columnar: blocks) whose maps are returned, ascending, 0-based;
            negative ones count from the end.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages
            (columnar: blocks). Frozen parts have no gradients and stay in eval mode.
        norm_eval: Keeps the running statistics of all BatchNorm layers fixed in training.
        with_cp: Activation checkpointing of every block: less memory, one more forward pass.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` takes an official or own
            checkpoint as it is (see :mod:`attnpool_backbones.checkpoints`).

    Raises:
        ValueError: An unknown ``arch``, ``out_indices`` or ``frozen_stages``; the message lists
            what is possible.
    """

    Arch: ClassVar[type]
    archs: ClassVar[Mapping[str, Any]]
    #: Name of the module list of stages: ``stages``, or ``blocks`` in a columnar trunk.
    trunk: ClassVar[str] = 'stages'

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
        """Returns the ``Arch`` of a name (case does not matter) or of a mapping of its fields.

        Raises:
            ValueError: An unknown name, an unknown field or a missing one.
            TypeError: Neither a name nor a mapping.
        """
        if isinstance(arch, cls.Arch):
            return arch
        if isinstance(arch, str):
            if arch.lower() not in cls.archs:
                raise ValueError(
                    f"{cls.__name__} has no arch '{arch}'; choose one of {', '.join(cls.archs)} "
                    f'or give a dict with the fields of {cls.__name__}.Arch'
                )
            return cls.archs[arch.lower()]
        if not isinstance(arch, Mapping):
            raise TypeError(f'arch of {cls.__name__} must be a name or a dict, not {arch!r}')
        known = {f.name: f.default is MISSING and f.default_factory is MISSING
                 for f in fields(cls.Arch)}  # fmt: skip
        unknown = sorted(set(arch) - set(known))
        missing = [name for name, required in known.items() if required and name not in arch]
        if unknown or missing:
            raise ValueError(
                f'arch of {cls.__name__}: unknown fields {unknown}, missing fields {missing}; '
                f'the fields are {", ".join(known)}'
            )
        return cls.Arch(**arch)

    def resolve_out_indices(self, out_indices: int | Sequence[int], depth: int) -> tuple[int, ...]:
        """Returns ``out_indices`` as ascending, non-negative stage numbers.

        Args:
            out_indices: As the constructor takes them.
            depth: Number of stages (columnar: blocks) of the variant.

        Raises:
            ValueError: Out of range, repeated, unsorted or empty.
        """
        indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        resolved = tuple(i + depth if i < 0 else i for i in indices)
        in_range = all(0 <= i < depth for i in resolved)
        if not resolved or not in_range or list(resolved) != sorted(set(resolved)):
            raise ValueError(
                f'out_indices={out_indices} of {type(self).__name__} must be ascending, without '
                f'repetition, and lie in 0..{depth - 1} (or -{depth}..-1)'
            )
        return resolved

    @staticmethod
    def drop_path_rates(rate: float, schedule: str, depth: int) -> list[float]:
        """Returns the drop-path rate of each of ``depth`` blocks.

        Args:
            rate: Rate of the last block.
            schedule: ``'linear'`` from 0 in the first block, or ``'constant'``.
            depth: Number of blocks of the whole variant.

        Raises:
            ValueError: An unknown schedule or a rate outside 0 <= rate < 1.
        """
        if schedule not in ('linear', 'constant') or not 0 <= rate < 1:
            raise ValueError(
                f"drop path needs 0 <= rate < 1 and schedule 'linear' or 'constant', "
                f"not rate={rate}, schedule='{schedule}'"
            )
        if schedule == 'constant':
            return [rate] * depth
        return [rate * i / max(depth - 1, 1) for i in range(depth)]

    def finish_init(self) -> None:
        """Ends a subclass's constructor: checks ``frozen_stages`` and freezes."""
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
            ValueError: ``x`` is no batch of images or smaller than 32 pixels.
        """
        self.check_input(x)
        x = self.stem(x)
        outputs = []
        for index, stage in enumerate(self.stages):
            x = stage.downsample(x)
            for block in stage.blocks:
                x = self.run_block(block, x)
            if index in self.out_indices:
                outputs.append(self.output(index, x))
        return tuple(outputs)

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError unless ``x`` is B, 3, H, W with H, W >= 32."""
        if x.dim() != 4 or x.shape[1] != 3 or min(x.shape[-2:]) < MIN_INPUT_SIZE:
            raise ValueError(
                f'{type(self).__name__} takes images B, 3, H, W with H, W >= {MIN_INPUT_SIZE}, '
                f'not {tuple(x.shape)}'
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
        return x.contiguous()

    # ------------------------------------------------------------------ training

    def stage_prefixes(self) -> list[tuple[str, ...]]:
        """Returns the parameter-name prefixes of the stem (entry 0) and of each stage."""
        depth = len(getattr(self, self.trunk))
        return [('stem',), *((f'{self.trunk}.{i}',) for i in range(depth))]

    def _freeze(self) -> None:
        frozen = [p for prefixes in self.stage_prefixes()[: self.frozen_stages + 1]
                  for p in prefixes]  # fmt: skip
        for name, module in self.named_modules():
            if _has_prefix(name, frozen):
                module.training = False
        for name, parameter in self.named_parameters():
            if _has_prefix(name, frozen):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> 'DenseBackbone':
        """Sets training mode; frozen stages and, with ``norm_eval``, BatchNorm stay in eval."""
        super().train(mode)
        if mode:
            self._freeze()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.training = False
        return self

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Returns the parameter-name prefixes of each layer, for layer-wise decay.

        Layer 0 is the stem; each block is a layer; a downsampling layer belongs to the first
        block behind it.
        """
        if self.trunk == 'blocks':
            return self.stage_prefixes()
        layers = [self.stage_prefixes()[0]]
        for s, stage in enumerate(self.stages):
            for b in range(len(stage.blocks)):
                block = (f'stages.{s}.blocks.{b}',)
                layers.append(block if b else (f'stages.{s}.downsample', *block))
        return layers

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Tells in which layer a parameter lies, with the signature of mmpretrain's backbones.

        Args:
            param_name: Full name of the parameter.
            prefix: What stands before the backbone's own names, e.g. ``'backbone.'``.

        Returns:
            The layer (0: stem; k: block k; the last: everything behind the blocks, such as output
            norms) and the number of layers, blocks + 2.

        Raises:
            ValueError: The name does not start with ``prefix``.
        """
        if not param_name.startswith(prefix):
            raise ValueError(f"'{param_name}' does not start with '{prefix}'")
        name = param_name[len(prefix):]  # fmt: skip
        layers = self.layer_prefixes()
        for depth, prefixes in enumerate(layers):
            if _has_prefix(name, prefixes):
                return depth, len(layers) + 1
        return len(layers), len(layers) + 1

    # ------------------------------------------------------------------ weights

    def init_weights(self) -> None:
        """Loads the checkpoint of ``init_cfg``, if it names one.

        Random initialisation has happened in the constructor, as in plain torch.

        Raises:
            attnpool_backbones.checkpoints.CheckpointMismatch: Less than 90 % of the parameters
                are in the file.
        """
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        for config in configs:
            if config is not None and config.get('type') == 'Pretrained':
                load_pretrained(self, **{k: v for k, v in config.items() if k != 'type'})
                self._is_init = True
                return
        super().init_weights()

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
        a buffer ``deployed`` marks it, and only a deployed backbone loads it.
        """
        self.eval()
        for module in list(self.modules()):
            if hasattr(module, 'fold'):
                module.fold()
        self.register_buffer(DEPLOYED, torch.tensor(True))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        require_same_form(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _has_prefix(name: str, prefixes: Sequence[str]) -> bool:
    return any(re.match(rf'{re.escape(prefix)}(\.|$)', name) for prefix in prefixes)
