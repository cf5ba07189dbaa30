"""An exported file in the place of a model: it answers ``test_step`` as mmdet's and mmseg's do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.exported_facts import Facts
from attnpool_backbones.inference.exported_files import read_exported
from attnpool_backbones.inference.mask_pasting import paste_masks
from attnpool_backbones.registry import MODELS

__all__ = ['ExportedFile', 'ExportedModel']

Forward = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class ExportedModel(BaseModel):
    """Gives what a graph gives the form of predictions.

    Args:
        forward: Runs the graph: float32 images B, 3, H, W in blue, green, red, 0 to 255, to its
            outputs by name. None: nothing is predicted.
        facts: What the file says about the graph.
    """

    def __init__(self, forward: Forward | None, facts: Facts) -> None:
        super().__init__()
        self.run, self.facts = forward, facts

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Raises: an exported file is not trained."""
        raise NotImplementedError('an exported file has only test_step')

    def test_step(self, data: Mapping[str, Any]) -> list[Any]:
        """Predicts.

        Args:
            data: ``inputs``, 3, H, W uint8 of each image, and ``data_samples``, which tell
                ``ori_shape`` and ``img_shape``.

        Returns:
            The data samples with ``pred_instances``, or with ``pred_sem_seg`` and ``seg_logits``,
            in pixels of the original images.
        """
        inputs, samples = list(data['inputs']), list(data['data_samples'])
        for first, count in self._batches(inputs):
            outputs = self.run(self.filled(inputs[first : first + count]))
            for row in range(count):
                own = {name: torch.from_numpy(value[row]) for name, value in outputs.items()}
                self._describe(own, inputs[first + row].shape[1:], samples[first + row])
        return samples

    val_step = test_step

    def _batches(self, inputs: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Groups neighbours of one size: the first one's index, and how many there are."""
        groups: list[tuple[int, int]] = []
        for index, image in enumerate(inputs):
            first, count = groups[-1] if groups else (0, 0)
            most = self.facts.batch or len(inputs)
            if groups and count < most and self._fits(inputs[first], image):
                groups[-1] = first, count + 1
            else:
                groups.append((index, 1))
        return groups

    def filled(self, images: Sequence[Tensor]) -> np.ndarray:
        """Makes images of one size what the graph takes.

        Args:
            images: 3, H, W uint8 each; not more than the graph takes at once. Where it takes
                another number, the last one fills the batch up.

        Returns:
            B, 3, H', W' float32.

        Raises:
            UserError: If an image is larger than the graph's size.
        """
        fitted = [self.fitted(image) for image in images]
        fitted += fitted[-1:] * ((self.facts.batch or 0) - len(fitted))
        return torch.stack(fitted).numpy()

    def _fits(self, one: Tensor, other: Tensor) -> bool:
        return self.facts.size is not None or one.shape == other.shape

    def fitted(self, image: Tensor) -> Tensor:
        """Adds rows and columns at the end of an image that is too small for the graph.

        Args:
            image: 3, H, W uint8.

        Returns:
            3, H', W' float32.

        Raises:
            UserError: If the image is larger than the graph's size.
        """
        height, width = image.shape[1:]
        if self.facts.size is None:
            least = self.facts.smallest
            bottom, right = max(least - height, 0), max(least - width, 0)
        else:
            bottom, right = self.facts.size[0] - height, self.facts.size[1] - width
        if bottom < 0 or right < 0:
            raise UserError(
                f'the file takes images up to {self.facts.size[0]}x{self.facts.size[1]} (height '
                f'and width), the image has {height}x{width}; export it with --size'
            )
        if not bottom and not right:
            return image.float()
        fill = torch.tensor(self.facts.fill, dtype=torch.float32).view(3, 1, 1)
        padded = fill.repeat(1, height + bottom, width + right)
        padded[:, :height, :width] = image
        return padded

    def _describe(self, outputs: Mapping[str, Tensor], size: Sequence[int], sample: Any) -> None:
        """Writes the outputs of one image of a size H, W into its sample."""
        original = tuple(sample.ori_shape[:2])
        if self.facts.task == 'segmentation':
            logits = outputs['logits'][:, : size[0], : size[1]].float()
            if tuple(logits.shape[1:]) != original:
                logits = F.interpolate(logits[None], original, mode='bilinear')[0]
            if len(logits) > 1:
                labels = logits.argmax(0, keepdim=True)
            else:
                logits = logits.sigmoid()
                labels = (logits > self.facts.binary).long()
            sample.set_data(
                dict(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=labels))
            )
            return
        edge = outputs['boxes'].new_tensor([size[1], size[0]])
        # what begins in the room around the image is no object in it
        is_around = (outputs['boxes'][:, :2] >= edge) & (outputs['boxes'][:, 2:] > edge)
        there = (outputs['labels'] >= 0) & ~is_around.any(1)
        boxes = outputs['boxes'][there].float()
        scale = boxes.new_tensor([original[1] / size[1], original[0] / size[0]] * 2)
        limit = boxes.new_tensor([original[1], original[0]] * 2)
        boxes = boxes * scale
        found = InstanceData(
            bboxes=torch.minimum(boxes, limit),
            scores=outputs['scores'][there].float(),
            labels=outputs['labels'][there],
        )
        if 'masks' in outputs:
            grids = outputs['masks'][there].float()
            found.masks = paste_masks(grids, boxes, *original, self.facts.mask)
        sample.set_data(dict(pred_instances=found))


@MODELS.register_module()
class ExportedFile(ExportedModel):
    """An exported file as the model of a config.

    Args:
        file: As :func:`~attnpool_backbones.inference.exported_files.read_exported` takes it.
        device: Where it is to run.
    """

    def __init__(self, file: str, device: str = 'cpu', **_: Any) -> None:
        super().__init__(*read_exported(file, device))
