"""Which layers an operator may compute from their weights without calling them."""

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_module

from attnpool_backbones.ops.gradients import gradients_wanted

# Keys and no set: the compiler of torch 2.6 does not look a class up in a set.
_PLAIN: dict[type[nn.Module], None] = dict.fromkeys([
    nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GELU,
    nn.ReLU, nn.SiLU, DropPath, type(revert_sync_batchnorm(nn.SyncBatchNorm(1))),
])  # fmt: skip
_FRESH: dict[type[nn.Module], None] = {
    **_PLAIN,
    nn.GroupNorm: None,
    nn.InstanceNorm2d: None,
    nn.Identity: None,
}
"""Those that keep nothing of what they return."""
# Those of tracers, too; a tracer's copy of any other type is of that type.
_WEIGHTS: dict[type[Tensor], None] = dict.fromkeys(
    [Tensor, nn.Parameter, FakeTensor, FunctionalTensor]
)


def plain(layer: type[nn.Module]) -> type[nn.Module]:
    """Declares, as a class decorator, that a layer's weights tell all that it computes."""
    _PLAIN[layer] = _FRESH[layer] = None
    return layer


def is_plain(*layers: nn.Module | None) -> bool:
    """Tells whether layers compute what their weights say: their types are known exactly.

    Adapters (LoRA) and parametrised layers are of other types; so are quantised and sharded ones,
    or their weights are (torchao, DTensor).
    """
    return _are_of(_PLAIN, layers)


def _are_of(types: dict[type[nn.Module], None], layers: Sequence[nn.Module | None]) -> bool:
    return all(
        layer is None
        or type(layer) in types
        and 'forward' not in layer.__dict__
        and all(p is None or type(p) in _WEIGHTS for p in layer._parameters.values())
        for layer in layers
    )


def may_fuse(*layers: nn.Module | None) -> bool:
    """Tells whether nobody can notice that layers are not called: plain ones without hooks."""
    return is_plain(*layers) and not _are_watched(*layers)


def does_nothing(layer: nn.Module | None) -> bool:
    """Tells whether there is no layer, or an identity which nobody can notice is not called.

    An identity is not plain: it has none of the attributes that plain layers have.
    """
    return layer is None or (
        type(layer) is nn.Identity and 'forward' not in layer.__dict__ and not _are_watched(layer)
    )


def is_unseen(maker: nn.Module, *after: nn.Module | None) -> bool:
    """Tells whether what layers returned may be overwritten: nobody else can have kept it.

    Args:
        maker: Has made it in memory of its own, unless it is an identity or unknown.
        *after: What came after it, in the end; may be identities.
    """
    layers = maker, *after
    fresh = type(maker) is not nn.Identity and _are_of(_FRESH, layers)
    return fresh and not _are_watched(*layers)


def own(y: Tensor, maker: nn.Module, *after: nn.Module | None) -> Tensor:
    """Returns what layers returned, for an operator that overwrites it without gradients.

    It is a copy where somebody else may have kept the original, see :func:`is_unseen`.

    Args:
        y: What they returned.
        maker: See :func:`is_unseen`.
        *after: See :func:`is_unseen`.
    """
    return y if gradients_wanted(y) or is_unseen(maker, *after) else y.clone()


def _are_watched(*layers: nn.Module | None) -> bool:
    # PyTorch's own question after them is younger than the oldest version that we take
    if (
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    ):
        return True
    return any(
        layer is not None
        and (
            layer._forward_hooks
            or layer._forward_pre_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
        )
        for layer in layers
    )


LARGE_MAP = 1 << 23
"""Values of a map over which a pass on a GPU takes longer than to start a few kernels."""


def folding_pays(x: Tensor, weight: Tensor, positions: int) -> bool:
    """Tells whether a factor of channels belongs into the weights of a layer.

    That saves a pass over a map and, in training, the copy of it. On a CPU a pass over the weights
    costs as much for each of them, and late layers have more weights than values. On a GPU the
    kernels which change the weights take longer to start than a pass over all but large maps takes,
    and a convolution adds its bias in such a pass anyway.

    Args:
        x: What the layer is called on.
        weight: C', ... of the layer.
        positions: For which it computes C' channels, those of all images.
    """
    on_gpu = x.device.type == 'cuda'
    if on_gpu and not torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling():
        return True
    return x.numel() >= LARGE_MAP if on_gpu else weight[0].numel() <= positions
