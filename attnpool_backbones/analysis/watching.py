"""Looks at the inputs of layers while a model runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ['watched']


@contextmanager
def watched(
    model: nn.Module, kinds: type | tuple[type, ...], look: Callable[..., None]
) -> Iterator[None]:
    """Calls ``look(name, layer, x, **options)`` before each call of the layers of some types.

    ``x`` is a copy, for some units overwrite their input; ``look`` may run ``layer.forward`` on it,
    which no hook sees.

    Args:
        model: Its layers are watched as long as the context lasts.
        kinds: Types of layers.
        look: Gets the layer's name in the model, the layer, its first argument, and those that it
            was called with by name.
    """

    def hook_of(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            x = args[0]
            look(name, layer, x.clone() if isinstance(x, Tensor) else x, **kwargs)

        return hook

    handles = [
        layer.register_forward_pre_hook(hook_of(name), with_kwargs=True)
        for name, layer in model.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
