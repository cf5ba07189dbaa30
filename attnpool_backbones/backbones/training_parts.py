"""The parts of a backbone in training: what is frozen, decays, and at what depth it lies."""

import re
from collections.abc import Sequence

from mmengine.model import BaseModule


class TrainingParts(BaseModule):
    """What freezing, layer-wise decay and weight decay ask of a backbone.

    It has a ``stem`` and, under the name that ``trunk`` tells, stages or blocks.
    """

    trunk: str
    frozen_stages: int
    norm_eval: bool

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

    def train(self, mode: bool = True) -> 'TrainingParts':
        """Sets training mode; frozen stages and, with ``norm_eval``, BatchNorm stay in eval."""
        super().train(mode)
        if mode:
            self._freeze()
            if self.norm_eval:
                for module in self.modules():
                    # mmcv's MMSyncBN is no _BatchNorm
                    if hasattr(module, 'running_mean'):
                        module.training = False
        return self

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Returns the parameter-name prefixes of each layer, for layer-wise decay.

        Layer 0 is the stem; each block is a layer; a downsampling layer belongs to the first
        block after it.
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
            prefix: What comes before the backbone's own names, e.g. ``'backbone.'``.

        Returns:
            The layer (0: stem; k: block k; the last: everything after the blocks, such as output
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

    def no_weight_decay(self) -> set[str]:
        """Returns the names of parameters that no recipe decays, although they are no vectors.

        Modules list theirs in an attribute ``undecayed``: position tables, class tokens. The name
        of the method is that of timm's models.
        """
        return {
            f'{path}.{name}' if path else name
            for path, module in self.named_modules()
            for name in getattr(module, 'undecayed', ())
            if getattr(module, name) is not None
        }


def _has_prefix(name: str, prefixes: Sequence[str]) -> bool:
    return any(re.match(rf'{re.escape(prefix)}(\.|$)', name) for prefix in prefixes)
