"""Builds what a benchmark runs: a backbone, a detector or a segmentor, and one step of it."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from attnpool_backbones import ops
from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.benchmark.loading_time import loading_seconds
from attnpool_backbones.benchmark.operators import OperatorWorkload, is_operator
from attnpool_backbones.benchmark.part_times import PartTimes
from attnpool_backbones.benchmark.peers import FORMS as PEER_FORMS
from attnpool_backbones.benchmark.peers import build_ours, build_peer
from attnpool_backbones.benchmark.prediction import PredictionWorkload, is_prediction
from attnpool_backbones.benchmark.random_batches import random_batch
from attnpool_backbones.benchmark.yardstick import APART, HERE, Yardstick
from attnpool_backbones.command_line import UserError, is_config
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.registry import MODELS

REFERENCES: dict[str, dict[str, Any]] = {
    'ResNet-50': dict(type='mmdet.ResNet', depth=50, frozen_stages=-1),
    'Swin-T': dict(type='mmdet.SwinTransformer', embed_dims=96, depths=[2, 2, 6, 2],
                   num_heads=[3, 6, 12, 24], drop_path_rate=0.0),
}  # fmt: skip
"""Backbones of mmdet that every other is compared with."""


def build_backbone(case: Case) -> nn.Module:
    """Builds the backbone of a case with random weights.

    Raises:
        UserError: An unknown type, architecture or reference.
    """
    torch.manual_seed(0)
    if case.model in REFERENCES:
        config = dict(REFERENCES[case.model], with_cp=case.with_cp)
        if config['type'] == 'mmdet.ResNet':
            config['norm_eval'] = case.norm_eval
        with DefaultScope.overwrite_default_scope('mmdet'):
            return MODELS.build(config)
    try:
        return build_ours(case.model, with_cp=case.with_cp, norm_eval=case.norm_eval)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"model '{case.model}' must be TYPE:ARCH of a backbone here, e.g. DeepViT:16b, one of "
            f'{", ".join(REFERENCES)}, or a config file (.py): {error}'
        ) from error


def build_whole_model(case: Case) -> nn.Module:
    """Builds the detector or segmentor of a case's config with random weights."""
    cfg = load_config(case.model)
    backbone = cfg.model.backbone
    backbone.with_cp = case.with_cp
    if 'norm_eval' in backbone or str(backbone.type).startswith('attnpool'):
        backbone.norm_eval = case.norm_eval
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if preprocessor.get('size'):  # a segmentor would pad smaller images to its crop
        preprocessor['size'] = case.size
    return build_config_model(cfg)


class Workload:
    """A case, built and ready to run.

    Args:
        case: What to run.
        device: ``'cpu'`` or ``'cuda'``.
        places: See :func:`attnpool_backbones.benchmark.peers.forms_of`. Default: none.
    """

    def __init__(self, case: Case, device: str, places: Mapping[str, Path] | None = None):
        self.case, self.device = case, device
        self.batch = self.gradients = self.parts = self.loading = None
        if case.form in PEER_FORMS:
            self.model = build_peer(case.model, case.form, case.size, case.norm_eval, places or {})
        elif is_config(case.model):
            self.model = build_whole_model(case)
            self.batch = random_batch(self.model.cfg, case.size, case.batch)
            self.parts = PartTimes(self.model) if device == 'cpu' else None
            self.loading = case.batch * loading_seconds(self.model.cfg, case.task == 'train')
        else:
            self.model = build_backbone(case)
        if self.batch is None:
            generator = torch.Generator().manual_seed(0)
            self.images = torch.randn(case.batch, 3, *case.size, generator=generator).to(device)
            if case.layout == 'channels_last':
                self.images = self.images.contiguous(memory_format=torch.channels_last)
                self.model.to(memory_format=torch.channels_last)
        if case.form == 'plain':
            # In torch's default layout: that of the images decides that of the maps.
            self.model.to(memory_format=torch.contiguous_format)
        self.model.to(device).train(case.task == 'train')
        self.function = self.model
        if case.compiled and self.batch is None:
            self.function = torch.compile(self.model)
        elif case.compiled:
            self.model.backbone = torch.compile(self.model.backbone)

    @property
    def difference(self) -> float | None:
        """Of a peer's outputs from ours; see :class:`attnpool_backbones.benchmark.peers.Peer`."""
        return getattr(self.model, 'difference', None)

    def clear(self) -> None:
        """Forgets the gradients of the last step."""
        self.model.zero_grad(set_to_none=True)

    def run(self) -> None:
        """Runs one forward pass or one training step, and waits for its end."""
        train = self.case.task == 'train'
        with torch.enable_grad() if train else torch.no_grad():
            with self._precision(), ops.formulas(self.case.form == 'plain'):
                outputs = self._forward()
            if train:
                self._backward(outputs)
        if self.device == 'cuda':
            torch.cuda.synchronize()

    def forward(self) -> None:
        """Runs the forward pass alone, without gradients."""
        with torch.no_grad(), self._precision(), ops.formulas(self.case.form == 'plain'):
            self._forward()

    def _precision(self) -> Any:
        if self.case.dtype == 'float32':
            return nullcontext()
        return torch.autocast(self.device, getattr(torch, self.case.dtype))

    def _forward(self) -> Any:
        if self.batch is None:
            return self.function(self.images)
        if not self.model.training:
            return self.model.test_step(self.batch)
        data = self.model.data_preprocessor(self.batch, training=True)
        try:
            losses = self.model(**data, mode='loss')
        except ValueError as error:  # heads that pool to one position and normalise over images
            if 'more than 1 value per channel' not in str(error):
                raise
            raise UserError(f'{self.case.label()} needs --batch 2 or more: {error}') from error
        return self.model.parse_losses(losses)[0]

    def _backward(self, outputs: Any) -> None:
        if isinstance(outputs, Tensor):  # the loss
            outputs.backward()
            return
        if self.gradients is None:  # made once, for they are no part of the step
            self.gradients = [torch.randn_like(y) for y in outputs]
        torch.autograd.backward(outputs, self.gradients)


def make_workload(
    case: Case, device: str, places: Mapping[str, Path] | None = None
) -> Workload | OperatorWorkload | PredictionWorkload | Yardstick:
    """Builds what a case runs: a model, an operator, a command, or a model elsewhere.

    Args:
        case: What to run.
        device: ``'cpu'`` or ``'cuda'``.
        places: See :func:`attnpool_backbones.benchmark.peers.forms_of`. Default: none.
    """
    if is_operator(case.model):
        return OperatorWorkload(case, device)
    if is_prediction(case.model):
        return PredictionWorkload(case, device)
    if case.form in APART:
        return Yardstick(case, device, (places or {}).get(case.form, HERE))
    return Workload(case, device, places)
