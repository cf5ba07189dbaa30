"""Builds the model of a config and runs it on random images."""

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn


def without_weights(config):
    """Returns a copy of a config part in which nothing is loaded from files."""
    if isinstance(config, dict):
        kept = {k: v for k, v in config.items() if k not in ('init_cfg', 'pretrained')}
        return type(config)({key: without_weights(value) for key, value in kept.items()})
    if isinstance(config, (list, tuple)):
        return type(config)(without_weights(v) for v in config)
    return config


def build_model(cfg: Config, device: str = 'cpu') -> nn.Module:
    """Builds ``cfg.model`` as a Runner does, without weights and with plain BatchNorm."""
    from attnpool_backbones.engine.launch import without_sync_norm

    torch.manual_seed(0)
    if cfg.model.backbone.type == 'SwinTransformer':
        device = 'cpu'  # its constructor reads values of a tensor
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        model = MODELS.build(without_sync_norm(without_weights(cfg.model)))
    model.cfg = cfg
    return model


def make_batch(cfg: Config, size: tuple[int, int], batch: int = 2) -> dict:
    """Returns random images with random ground truth, as a data loader would."""
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for _ in range(batch)
    ]
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        inputs = demo_mm_inputs(batch, [(3, *size)] * batch, num_items=[3] * batch,
                                num_classes=10, with_mask=True)  # fmt: skip
        return dict(inputs=images, data_samples=inputs['data_samples'])

    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(batch):
        classes = cfg.model.decode_head.num_classes
        labels = torch.randint(0, classes, (1, *size), generator=generator)
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
        samples.append(
            SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels))
        )  # fmt: skip
    return dict(inputs=images, data_samples=samples)


def train_step(model: nn.Module, batch: dict) -> dict[str, torch.Tensor]:
    """Returns the losses of a training step; gradients are left in the parameters."""
    model.train()
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode='loss')
    total, log = model.parse_losses(losses)
    total.backward()
    return log


def predict(model: nn.Module, batch: dict) -> list:
    """Returns the predictions in eval mode."""
    model.eval()
    with torch.no_grad():
        return model.test_step(batch)
