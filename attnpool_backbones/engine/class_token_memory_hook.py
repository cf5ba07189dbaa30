"""Tells what one class token per class will cost before the first step of a training."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.engine.wrapped_models import bare_model
from attnpool_backbones.layers.attention_pooling import AttentionPooling
from attnpool_backbones.registry import HOOKS

MIB = 2**20


@HOOKS.register_module()
class ClassTokenMemoryHook(Hook):
    """Logs the memory that attention pooling takes in a training step, with K tokens and with one.

    It is computed (:meth:`AttentionPooling.training_bytes`) for the batch of a process and the size
    of the first image, of a model with a ``backbone`` whose last map is pooled.
    """

    def __init__(self) -> None:
        self._has_told = False

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Logs a line for each pooling layer with more than one token, once.

        Args:
            runner: The running training.
            batch_idx: Not used.
            data_batch: With ``inputs``, B images 3, H, W.
        """
        if self._has_told:
            return
        self._has_told = True
        model = bare_model(runner.model)
        layers = [
            layer
            for layer in model.modules()
            if isinstance(layer, AttentionPooling) and layer.num_tokens > 1
        ]
        if not layers:
            return
        batch = runner.cfg.train_dataloader.get('batch_size', 1)
        stride = model.backbone.out_strides[-1]
        height, width = data_batch['inputs'][0].shape[-2:]
        positions = -(-height // stride) * -(-width // stride)
        for layer in layers:
            whole, one = (layer.training_bytes(batch, positions, n) / MIB for n in (None, 1))
            runner.logger.info(
                f'attention pooling with {layer.num_tokens} class tokens takes about {whole:.0f} '
                f'MiB at the peak of a step of {batch} images of {height}x{width}; one token would '
                f'take {one:.0f} MiB'
            )
