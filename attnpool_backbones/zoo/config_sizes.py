"""Parameters and multiply-accumulates of the whole model of a config, without computing anything.

The model lives on the meta device, where tensors have shapes but no values. Counted is what testing
one image does: backbone, neck and heads, with as many boxes in the second stage as the test
settings let pass (1000 or 2000 boxes and 100 masks on COCO). Auxiliary heads are parameters, but
only training runs them.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.zoo.complexity import count_macs, count_parameters
from attnpool_backbones.zoo.config_names import config_name


@dataclass(frozen=True)
class Size:
    """What a model costs."""

    parameters: int
    """Of the whole model: auxiliary heads and frozen parameters too."""
    macs: int
    """Of testing one image of ``height`` x ``width`` pixels."""
    height: int
    width: int


def measure_size(config: Path) -> Size:
    """Counts the parameters and MACs of a config's model.

    Args:
        config: The config file; its name tells the data set and so the size of the image.

    Returns:
        The size.

    Raises:
        UserError: A name that does not.
    """
    height, width = config_name(config).data_set.input_size
    return measure_model(load_config(str(config)), height, width)


def measure_model(cfg: Config, height: int, width: int) -> Size:
    """Counts the parameters and MACs of a model.

    Args:
        cfg: The whole config.
        height: Of the image in pixels.
        width: Of the image in pixels.
    """
    model = build_config_model(cfg, 'meta').eval()
    image = torch.empty(1, 3, height, width, device='meta')  # 1, 3, H, W
    macs = count_macs(lambda: _test(model, image))
    return Size(count_parameters(model), macs, height, width)


def _test(model: nn.Module, image: Tensor) -> None:
    maps = model.extract_feat(image)
    if hasattr(model, 'decode_head'):
        model.decode_head(maps)
        return
    if not hasattr(model, 'roi_head'):
        model.bbox_head(maps)
        return
    model.rpn_head(maps)
    heads, boxes = model.roi_head, model.test_cfg.rpn.max_per_img
    _run_on_regions(heads.bbox_head, heads.bbox_roi_extractor, boxes)
    if heads.with_mask:
        _run_on_regions(heads.mask_head, heads.mask_roi_extractor, model.test_cfg.rcnn.max_per_img)


def _run_on_regions(head: nn.Module, extractor: nn.Module, regions: int) -> None:
    """Runs a head, or those of all cascade stages, on regions as the extractor would cut them."""
    stages = isinstance(head, nn.ModuleList)
    for stage, cut in zip(head, extractor, strict=True) if stages else [(head, extractor)]:
        size = cut.roi_layers[0].output_size
        stage(torch.empty(regions, cut.out_channels, *size, device='meta'))
