"""What the backward pass of a layer keeps of its forward pass, counted to the byte."""

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def kept_bytes(layer: nn.Module, x: Tensor) -> int:
    """Counts the memory that stays allocated between forward and backward pass.

    Args:
        layer: Takes ``x``. Its parameters and buffers do not count.
        x: Input that wants a gradient; does not count.

    Returns:
        Bytes of all other tensors that autograd keeps, each memory once.
    """
    known = {t.untyped_storage().data_ptr() for t in (x, *layer.parameters(), *layer.buffers())}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so no address is used twice
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x)
    del y
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
