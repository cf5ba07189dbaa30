"""What others ship of the same models: timm, mmdet, and official code in a folder of the user's."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.benchmark.torchvision_stand_in import torchvision_or_stand_in
from attnpool_backbones.benchmark.yardstick import APART
from attnpool_backbones.checkpoints.errors import CheckpointMismatch
from attnpool_backbones.checkpoints.loading import load_pretrained
from attnpool_backbones.command_line import UserError
from attnpool_backbones.registry import MODELS

FORMS = ('timm', 'mmdet', 'official', 'yardstick', 'apart')
"""Whose code runs a case; ``'yardstick'``: ours, of another checkout; ``'apart'``: ours, in a
process of its own like the yardstick."""
COMPARED_SIZE = (224, 224)
"""Height and width of the image on which outputs are compared, in pixels: all were made for it."""

_RESNET50 = dict(type='mmdet.ResNet', depth=50, frozen_stages=-1)
_GC = dict(cfg=dict(type='ContextBlock', ratio=1 / 16), position='after_conv3')


@dataclass(frozen=True, kw_only=True)
class OfficialCode:
    """Where a model is in the code that its authors published."""

    file: str
    """Its name; it is searched for in the folder that the user gives and below."""
    function: str
    """Function of it that makes the model, without arguments it needs."""
    maps: tuple[str, ...]
    """Submodules whose outputs are the maps, or the tokens."""


def _insight(unit: str) -> OfficialCode:
    layers = tuple(f'layer{i}' for i in range(1, 5))
    # A BAM stands after a layer; the last has none.
    maps = ('bam1', 'bam2', 'bam3', 'layer4') if unit == 'bam' else layers
    return OfficialCode(file=f'resnet_{unit}.py', function=f'{unit}_resnet50', maps=maps)


TIMM = {
    'MetaFormer:poolformer_s24': 'poolformer_s24',
    'MetaFormer:convformer_s18': 'convformer_s18',
    'MetaFormer:caformer_s18': 'caformer_s18',
    'CoAtNet:timm_0': 'coatnet_0_224',
    'CoAtNet:0_rw': 'coatnet_0_rw_224',
    'AttnResNet:resnet50': 'resnet50',
    'AttnResNet:se_resnet50': 'seresnet50',
}
"""timm's names of our models."""
MMDET = {
    'AttnResNet:resnet50': _RESNET50,
    'AttnResNet:gc_resnet50': dict(_RESNET50, plugins=[_GC]),
}
"""mmdet's configs of our models."""
_STAGES = tuple(f'stages.{i}' for i in range(4))
OFFICIAL = {
    'PatchConvNet:s60': OfficialCode(
        file='patchconvnet_models.py', function='S60', maps=('blocks.59',)
    ),
    'DeepViT:s': OfficialCode(
        file='deep_vision_transformer.py', function='deepvit_S', maps=('blocks.15',)
    ),
    'DeepViT:16b': OfficialCode(
        file='deep_vision_transformer.py', function='deepvit_patch16_224_re_attn_16b',
        maps=('blocks.15',),
    ),
    'MetaFormer:poolformer_s24': OfficialCode(
        file='poolformer.py', function='poolformer_s24',
        maps=('network.0', 'network.2', 'network.4', 'network.6'),
    ),
    'MetaFormer:convformer_s18': OfficialCode(
        file='metaformer_baselines.py', function='convformer_s18', maps=_STAGES
    ),
    'MetaFormer:caformer_s18': OfficialCode(
        file='metaformer_baselines.py', function='caformer_s18', maps=_STAGES
    ),
    **{f'AttnResNet:{unit}_resnet50': _insight(unit)
       for unit in ('sge', 'se', 'sk', 'cbam', 'bam')},
}  # fmt: skip
"""Our models in the code of deit, dvit_repo, poolformer, metaformer and PytorchInsight."""
WITHOUT_NORMS = {'MetaFormer': dict(out_norm='none'), 'CoAtNet': dict(out_norms=False)}
"""Arguments of ours when outputs are compared: norms of the outputs are no part of what others
ship. Times are those of ours with the norms that it has by default."""
MODELS_WITH_PEERS = tuple(dict.fromkeys([
    'PatchConvNet:s60', 'MetaFormer:poolformer_s24', 'MetaFormer:convformer_s18',
    'MetaFormer:caformer_s18', 'CoAtNet:timm_0', 'CoAtNet:0_rw', 'DeepViT:s', 'DeepViT:16b',
    'AttnResNet:resnet50', *OFFICIAL, *MMDET,
]))  # fmt: skip
"""Models that somebody else ships too, in the order of the README."""


def forms_of(model: str, places: Mapping[str, Path]) -> list[str]:
    """Returns whose code can run a model of ours.

    Args:
        model: ``TYPE:ARCH``.
        places: Folders that the user gives, for ``'official'`` and ``'yardstick'``.
    """
    tables = dict(timm=TIMM, mmdet=MMDET, official=OFFICIAL)
    known = [form for form, table in tables.items() if model in table]
    return [
        *(form for form in known if form != 'official' or form in places),
        *(APART if 'yardstick' in places else ()),
    ]


def peer_versions() -> dict[str, str]:
    """Returns the versions of timm and mmdet, those that are installed.

    Both, whichever has the model: jobs of a folder are measured in several calls.
    """
    found = {}
    for name in ('timm', 'mmdet'):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # the case says so itself
    return found


class Peer(nn.Module):
    """Another's model as a backbone: images in, a list of feature maps (or tokens) out."""

    difference: float | None = None
    """Largest difference of its outputs from ours with the same weights, over the largest value;
    None where the weights cannot be carried over."""

    norm_eval = False
    """Whether BatchNorm's statistics stay fixed in training."""

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Tensor], list[Tensor]]):
        super().__init__()
        self.model = model
        self.maps_of = forward

    def train(self, mode: bool = True) -> 'Peer':
        super().train(mode)
        for module in self.modules() if self.norm_eval else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.maps_of(self.model, x)


_differences: dict[tuple, float | None] = {}
"""What was compared in this process: both layouts and tasks have the same outputs."""


def build_peer(
    model: str, form: str, size: tuple[int, int], norm_eval: bool, places: Mapping[str, Path]
) -> Peer:
    """Builds another's version of a model of ours, and compares what both compute.

    Args:
        model: ``TYPE:ARCH`` of ours.
        form: ``'timm'``, ``'mmdet'`` or ``'official'``.
        size: Of the images to come.
        norm_eval: Whether BatchNorm's statistics stay fixed in training.
        places: See :func:`forms_of`.

    Raises:
        UserError: It is not installed, or is no peer of this model.
    """
    if model not in dict(timm=TIMM, mmdet=MMDET, official=OFFICIAL)[form]:
        raise UserError(f'{form} has no version of {model} that is known here')
    make = dict(timm=_timm_model, mmdet=_mmdet_model, official=_official_model)[form]
    at_size = make(model, size, places)
    known = model, form, places.get('official')
    if known not in _differences:
        _differences[known] = _difference(model, make(model, COMPARED_SIZE, places))
    at_size.difference = _differences[known]
    at_size.norm_eval = norm_eval
    return at_size


def imported_timm() -> ModuleType:
    """Imports timm, with a stand-in for torchvision where that is not installed.

    Raises:
        UserError: timm is not installed.
    """
    with torchvision_or_stand_in():
        try:
            return importlib.import_module('timm')
        except ImportError as error:
            raise UserError(
                f"timm cannot be imported ({error}); pip install -e '.[peers]'"
            ) from error


def _timm_model(model: str, size: tuple[int, int], places: Mapping[str, Path]) -> Peer:
    timm = imported_timm()
    name = TIMM[model]
    # timm's CoAtNets are built for one size.
    fixed = dict(img_size=size) if name.startswith('coatnet') else {}
    network = timm.create_model(name, num_classes=0, **fixed)
    last = len(network.feature_info) - 1
    levels = list(range(last - 3, last + 1))
    return Peer(
        network,
        lambda net, x: net.forward_intermediates(x, indices=levels, intermediates_only=True),
    )


def _mmdet_model(model: str, size: tuple[int, int], places: Mapping[str, Path]) -> Peer:
    try:
        importlib.import_module('mmdet.models')
    except ImportError as error:
        raise UserError(f"mmdet cannot be imported ({error}); pip install -e '.[det]'") from error
    with DefaultScope.overwrite_default_scope('mmdet'):
        network = MODELS.build(MMDET[model])
    return Peer(network, lambda net, x: list(net(x)))


def official_file(model: str, folder: Path) -> Path | None:
    """Finds the file of a model in the folder of official code, None if it is not there."""
    return min(folder.rglob(OFFICIAL[model].file), default=None)


def official_sources(model: str, folder: Path) -> list[Path]:
    """Returns the file of a model and those that it may import, all beside or below it."""
    file = official_file(model, folder)
    return [] if file is None else sorted(file.parent.rglob('*.py'))


def _official_model(model: str, size: tuple[int, int], places: Mapping[str, Path]) -> Peer:
    code = OFFICIAL[model]
    file = official_file(model, places['official'])
    if file is None:
        raise UserError(f'{model}: no {code.file} in {places["official"]} or below')
    with torchvision_or_stand_in():
        module = _import_file(file)
    fixed = dict(img_size=size) if model.startswith('DeepViT') else {}
    try:
        network = getattr(module, code.function)(**fixed)
    except (AttributeError, TypeError) as error:
        raise UserError(f'{model}: {file} is not as expected: {error}') from error
    return Peer(network, _OutputsOf(network, code.maps))


def _import_file(file: Path) -> ModuleType:
    """Imports a file as a module of a package that is its folder, for relative imports."""
    package = f'official_code_{abs(hash(file.parent))}'
    if package not in sys.modules:
        folder = ModuleType(package)
        folder.__path__ = [str(file.parent)]
        sys.modules[package] = folder
    try:
        return importlib.import_module(f'{package}.{file.stem}')
    except ImportError as error:
        raise UserError(f'{file} cannot be imported: {error}') from error


class _OutputsOf:
    """Calls a classifier and returns what submodules of it gave.

    Args:
        network: The classifier.
        names: Of the submodules.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]):
        self.outputs: dict[str, Tensor] = {}
        self.names = names
        modules = dict(network.named_modules())
        for name in names:
            if name not in modules:
                raise UserError(f'the official model has no submodule {name}')
            modules[name].register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self.outputs[name] = output[0] if isinstance(output, tuple) else output

        return keep

    def __call__(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        network(x)
        return [self.outputs.pop(name) for name in self.names]


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Returns the largest difference of maps, or of tokens, over the largest value."""
    found = []
    for a, b in zip(ours, theirs, strict=True):
        if b.dim() == 3:  # tokens, a class token before them or not
            b = b[:, b.shape[1] - a.shape[2] * a.shape[3] :].transpose(1, 2).reshape(a.shape)
        found.append(((a - b).abs().max() / b.abs().max()).item())
    return max(found)


def build_ours(model: str, **options: Any) -> nn.Module:
    """Builds a backbone of this package, given as ``TYPE:ARCH``, with further arguments."""
    kind, _, arch = model.partition(':')
    return MODELS.build(dict(type=f'attnpool_backbones.{kind}', arch=arch, **options))


def draw_vectors(model: nn.Module) -> None:
    """Draws norms, biases, scales and running statistics at random, in place.

    As models are initialised, some scales are 0 or nearly so, and branches behind them would not
    count in a comparison.

    Args:
        model: Its matrices and kernels stay.
    """
    generator = torch.Generator().manual_seed(0)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and value.dim() == 1:
            drawn = torch.empty_like(value).uniform_(-0.2, 0.2, generator=generator)
            value.copy_(drawn if name.endswith(('bias', 'running_mean')) else 1 + drawn)


@torch.no_grad()
def _difference(model: str, peer: Peer) -> float | None:
    draw_vectors(peer.model)
    ours = build_ours(model, **WITHOUT_NORMS.get(model.partition(':')[0], {}))
    with TemporaryDirectory() as folder:
        file = Path(folder, 'theirs.pth')
        torch.save(peer.model.state_dict(), file)
        try:
            report = load_pretrained(ours, file, logger='silent')
        except CheckpointMismatch:
            return None
    if report.missing:
        return None
    x = torch.randn(1, 3, *COMPARED_SIZE, generator=torch.Generator().manual_seed(0))
    return difference(ours.eval()(x), peer.eval()(x))
