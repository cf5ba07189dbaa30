"""Finds where in a model numbers stop being finite, by training on a batch once more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ['Finding', 'image_names', 'search']

MAX_NAMES = 8
"""Images of a batch that are named."""


class Finding(NamedTuple):
    """What a second pass over a batch showed.

    Attributes:
        losses: The loss terms by name.
        place: The first value that is not finite, in the order of computation; '' if all are.
    """

    losses: dict[str, float]
    place: str


def search(model: nn.Module, batch: Any, optim_wrapper: Any) -> Finding:
    """Repeats a training step without its update, and watches every module.

    Gradients are lost and buffers (running statistics) are as before.

    Args:
        model: Of the runner, in the mode it was trained in.
        batch: Of the dataloader.
        optim_wrapper: Of the runner; gives the context of the forward pass (mixed precision).
    """
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    places: list[str] = []
    try:
        model.zero_grad(set_to_none=True)
        with watch(model, places), torch.enable_grad():
            outputs = model.train_step(batch, optim_wrapper=BackwardOnly(optim_wrapper))
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
    return Finding(loss_terms(outputs), places[0] if places else '')


class BackwardOnly:
    """Stands in for an optimizer wrapper that never updates.

    Args:
        optim_wrapper: The real one.
    """

    def __init__(self, optim_wrapper: Any) -> None:
        self.optim_wrapper = optim_wrapper

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Wraps the forward pass as the real one does, without exchange between processes."""
        with self.optim_wrapper.optim_context(model):
            if hasattr(model, 'no_sync'):
                with model.no_sync():
                    yield
            else:
                yield

    def update_params(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Does the backward pass only."""
        loss.backward()


@contextmanager
def watch(model: nn.Module, places: list[str]) -> Iterator[None]:
    """Notes every module output and every gradient that is not finite, in order.

    Args:
        model: Watched while the context lasts.
        places: Extended by descriptions.
    """

    def note(value: Any, place: str) -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            if not torch.isfinite(value.detach()).all():
                places.append(place)

    def watcher(name: str, module: nn.Module) -> Any:
        title = f'{name or "the model"} ({type(module).__name__})'

        def look(_: nn.Module, inputs: Any, outputs: Any) -> None:
            for value in tensors_in(outputs):
                note(value, f'the output of {title}')
                if value.requires_grad:
                    value.register_hook(
                        lambda gradient: note(gradient, f'the gradient at the output of {title}')
                    )

        return look

    handles = [
        module.register_forward_hook(watcher(name, module))
        for name, module in model.named_modules()
    ]
    for name, parameter in model.named_parameters():
        note(parameter, f'the parameter {name}')
        if parameter.requires_grad:
            handles.append(
                parameter.register_hook(
                    lambda gradient, name=name: note(gradient, f'the gradient of {name}')
                )
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yields the tensors of nested lists, tuples and dicts."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors_in(value)


def loss_terms(outputs: dict[str, Any] | None) -> dict[str, float]:
    """Returns the mean of every entry of a model's log with ``loss`` in its name."""
    return {
        name: torch.as_tensor(value).float().mean().item()
        for name, value in (outputs or {}).items()
        if 'loss' in name
    }


def image_names(batch: Any) -> list[str]:
    """Names the first images of a batch by their paths, or else their ids.

    Args:
        batch: Of the dataloader, with OpenMMLab's data samples anywhere in it.
    """
    names: list[str] = []
    pending = [batch]
    while pending and len(names) < MAX_NAMES:
        value = pending.pop(0)
        info = getattr(value, 'metainfo', None)
        if isinstance(info, dict):
            name = info.get('img_path', info.get('img_id'))
            names += [] if name is None else [str(name)]
        elif isinstance(value, dict):
            pending[:0] = value.values()
        elif isinstance(value, (list, tuple)):
            pending[:0] = value
    return names
