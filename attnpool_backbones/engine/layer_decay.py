"""Learning rates that fall from the heads to the stem, for any backbone that knows its layers.

Layer-wise decay for fine-tuning vision transformers: BEiT, arXiv 2106.08254.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from attnpool_backbones.registry import OPTIM_WRAPPER_CONSTRUCTORS

PREFIX = 'backbone.'
OPTIONS = ('decay_rate', 'no_decay')
_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Groups parameters by layer and by whether they have weight decay.

    A parameter in layer k of the backbone's n layers learns with lr * decay_rate^(n - 1 - k); what
    lies after the backbone's blocks and outside of the backbone learns with lr. The backbone tells
    k and n by ``get_layer_depth(name, prefix)``, as all of this package and those of mmpretrain do.

    ``paramwise_cfg`` has these entries:

    - ``decay_rate`` (float): Learning rate of a layer over that of the next, above 0, at most 1.
    - ``no_decay`` (list of str): Parts of dotted names; parameters with one of them have no weight
      decay, like all norms and everything with at most one dimension: biases, layer scales.
      Default: what the backbone names in ``no_weight_decay()``, as all of this package and those of
      timm do.

    Args:
        optim_wrapper_cfg: Config of the wrapper with its ``optimizer``, whose ``lr`` is required.
        paramwise_cfg: See above.

    Raises:
        ValueError: No ``lr``, a ``decay_rate`` out of range or an unknown entry.
        TypeError: When called with a model that has no ``backbone``, or one that does not know its
            layers.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Mapping[str, Any] | None = None):
        super().__init__(optim_wrapper_cfg, dict(paramwise_cfg or {}))
        unknown = sorted(set(self.paramwise_cfg) - set(OPTIONS))
        if unknown:
            raise ValueError(f'paramwise_cfg has {unknown}; layer decay knows {", ".join(OPTIONS)}')
        self.decay_rate = self.paramwise_cfg.get('decay_rate')
        if not isinstance(self.decay_rate, (int, float)) or not 0 < self.decay_rate <= 1:
            raise ValueError(
                f'paramwise_cfg needs 0 < decay_rate <= 1 for layer decay, not {self.decay_rate!r}'
            )
        if self.base_lr is None:
            raise ValueError('layer decay needs lr in optim_wrapper.optimizer')
        self.no_decay = self.paramwise_cfg.get('no_decay')

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Adds one group for each layer and kind of weight decay.

        Args:
            params: Groups, extended in-place: ``params``, ``lr``, ``weight_decay`` and, for the
                reader, ``group_name``, e.g. ``'3_before_heads_no_decay'``.
            module: The model.
            prefix: Not used: names are those of the model.
            is_dcn_module: Not used.
        """
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise TypeError(
                f'layer decay asks model.backbone.get_layer_depth(name, prefix), which '
                f'{type(module).__name__} with a backbone of type {type(backbone).__name__} lacks; '
                f'use a backbone of attnpool_backbones, or another optim_wrapper.constructor'
            )
        norms = {
            id(parameter)
            for layer in module.modules()
            if isinstance(layer, _NORMS)
            for parameter in layer.parameters(recurse=False)
        }
        undecayed = self._undecayed(module)
        groups: dict[tuple[int, bool], dict] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            remaining = 0  # layers between this one and the heads
            if name.startswith(PREFIX):
                depth, layers = backbone.get_layer_depth(name, PREFIX)
                remaining = layers - 1 - depth
            decays = not (parameter.ndim <= 1 or id(parameter) in norms or name in undecayed)
            if (remaining, decays) not in groups:
                groups[remaining, decays] = dict(
                    params=[],
                    lr=self.base_lr * self.decay_rate**remaining,
                    weight_decay=(self.base_wd or 0.0) if decays else 0.0,
                    group_name=f'{remaining}_before_heads' + ('' if decays else '_no_decay'),
                )
            groups[remaining, decays]['params'].append(parameter)
        params.extend(groups[key] for key in sorted(groups, reverse=True))
        for group in params:
            print_log(
                f'{group["group_name"]}: {len(group["params"])} parameters, lr {group["lr"]:.3g}, '
                f'weight decay {group["weight_decay"]:g}',
                logger='current',
            )

    def _undecayed(self, model: nn.Module) -> set[str]:
        """Returns the names that the config or the backbone exempts from weight decay."""
        if self.no_decay is None:
            told = getattr(model.backbone, 'no_weight_decay', set)()
            return {PREFIX + name for name in told}
        return {
            name
            for name, _ in model.named_parameters()
            if any(word in part for word in self.no_decay for part in name.split('.'))
        }
