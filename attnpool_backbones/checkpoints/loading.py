"""Loads a checkpoint of any known origin into a backbone."""

import logging
from collections.abc import Mapping, Sequence
from os import PathLike

import torch
from mmengine.logging import MMLogger, print_log
from torch import Tensor, nn

from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat
from attnpool_backbones.checkpoints.errors import CheckpointMismatch
from attnpool_backbones.checkpoints.finite_bits import TypedMemory, memory_of
from attnpool_backbones.checkpoints.finite_weights import require_finite_weights
from attnpool_backbones.checkpoints.known_formats import FORMATS, recognise
from attnpool_backbones.checkpoints.matching import (
    is_statistic,
    require_no_lookalikes,
    shapes_of,
)
from attnpool_backbones.checkpoints.message_texts import list_names, shape_text
from attnpool_backbones.checkpoints.reading import explained, read_state_dict
from attnpool_backbones.checkpoints.report import LoadReport

MIN_SHARE = 0.9
"""Share of a backbone's parameters, counted in elements, that a checkpoint must have."""

# Buffer of a backbone whose norms and scales are folded into its other weights.
DEPLOYED = 'deployed'


def load_pretrained(
    model: nn.Module,
    checkpoint: str | PathLike,
    prefix: str | None = None,
    map_location: str | torch.device = 'cpu',
    *,
    ema: bool = False,
    partly: bool = False,
    logger: MMLogger | str | None = 'current',
) -> LoadReport:
    """Loads an official or own checkpoint into a backbone and logs one short report.

    Tensors of another shape are offered to ``model.adapt_parameter(name, value)``, all of them to
    ``model.adapt_state_dict(state_dict)``, if the model has these methods; shapes that differ by
    trailing ones only (linear and 1x1 convolution) fit as they are.

    Args:
        model: The backbone; changed in-place.
        checkpoint: As :func:`read_checkpoint` takes it.
        prefix: What comes before the backbone's names in the file. Default: found.
        map_location: Device on which the file is read.
        ema: Whether to take the moving average of the weights.
        partly: Whether layers may stay random although the file has weights of their shapes, by
            names that are not known, and norms keep their initial statistics.
        logger: Where mmengine's ``print_log`` puts the report; a warning if something is missing
            or unexpected.

    Raises:
        CheckpointMismatch: Less than 90 % of the model's parameters, counted in elements and
            without those that no published file has, are in the file, or whole layers would stay
            random while the file has as many unknown tensors of their shapes, or the file has
            weights of norms without the running statistics that the model's have, or only one of
            file and model is deployed. The model is unchanged then.
        FileNotFoundError: No such file.
        ValueError: The file is no checkpoint or not a safe one; see :func:`read_checkpoint`.
    """
    finite: set[TypedMemory] = set()
    raw = read_state_dict(
        checkpoint, prefix=prefix, ema=ema, map_location=map_location, finite=finite
    )
    # what else the file had is gone, and its memory may be given to other numbers
    finite &= set(map(memory_of, raw.values()))
    targets = model.state_dict()
    known = recognise(raw)
    own = [f for f in FORMATS if f.backbone in _families(model)]
    source, used = raw, own
    if known in own:
        converted = known.convert(raw)
        if _overlap(converted, targets) > _overlap(raw, targets):
            source, used = converted, [known]

    require_same_form(model, source)
    adapt = getattr(model, 'adapt_state_dict', None)
    changed = adapt(source) if adapt is not None else {}
    source = {**source, **changed}

    report = LoadReport(str(checkpoint), known.name if known in own else 'own names')
    fitting = {}
    fresh = _fresh_names(targets, source, used, getattr(model, 'added', ()))
    for name, target in targets.items():
        if name not in source:
            # Files older than this counter of BatchNorm (torch 0.4.1) do without it.
            if name.endswith('.num_batches_tracked'):
                continue
            (report.fresh if name in fresh else report.missing).append(name)
            continue
        value, resized = _fit(model, name, source[name], target)
        if value is None:
            report.missing.append(name)
            there, here = shape_text(source[name].shape), shape_text(target.shape)
            report.misshapen[name] = f'{there} in the file, {here} here'
            continue
        fitting[name] = value
        (report.resized if resized or name in changed else report.loaded).append(name)
    is_unbuilt = getattr(model, 'is_unbuilt', lambda name: False)
    for name in source:
        if name not in targets:
            leftover = any(f.is_leftover(name) for f in used) or is_unbuilt(name)
            (report.leftovers if leftover else report.unexpected).append(name)

    _require_share(model, report, fitting, known, source)
    with explained(str(checkpoint)):
        require_finite_weights(fitting, lambda name: targets[name].is_floating_point(), finite)
    if not partly:
        _require_no_lookalikes(model, report, source)
        _require_statistics(report, fitting)
    model.load_state_dict(fitting, strict=False)
    print_log(str(report), logger, logging.INFO if report.clean else logging.WARNING)
    return report


def _require_no_lookalikes(
    model: nn.Module, report: LoadReport, source: Mapping[str, Tensor]
) -> None:
    needed = shapes_of({n: p for n, p in model.named_parameters() if n not in report.fresh})
    stored = shapes_of({n: value for n, value in source.items() if n not in report.leftovers})
    require_no_lookalikes(
        needed,
        stored,
        report.checkpoint,
        'Rename them in a copy of the file; init_cfg=dict(partly=True) loads the rest.',
    )


def _require_statistics(report: LoadReport, fitting: Mapping[str, Tensor]) -> None:
    lacking = [
        name
        for name in report.missing
        if is_statistic(name) and f'{name.rpartition(".")[0]}.weight' in fitting
    ]
    if lacking:
        raise CheckpointMismatch(
            f'{report.checkpoint} has weights of norms without their running statistics: they are '
            'norms of another kind, such as GroupNorm, or only parameters were saved. '
            f'init_cfg=dict(partly=True) loads the rest.\n  not in the file: {list_names(lacking)}'
        )


def require_same_form(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = '') -> None:
    """Checks that a backbone and weights are both deployed, or neither.

    Args:
        model: The backbone.
        state_dict: Weights of it, or of a model that it is part of.
        prefix: What comes before the backbone's names.

    Raises:
        CheckpointMismatch: Only one of them is; the names fit, but the numbers mean something else.
    """
    here, there = hasattr(model, DEPLOYED), prefix + DEPLOYED in state_dict
    if here == there or not any(name.startswith(prefix) for name in state_dict):
        return
    raise CheckpointMismatch(
        f'the weights are those of a {type(model).__name__} {"after" if there else "before"} '
        f'switch_to_deploy(), which this one has {"not " if there else ""}been through; '
        + ('call it before you load them' if there else 'load them before you call it')
    )


def _fresh_names(
    targets: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    formats: Sequence[CheckpointFormat],
    added: tuple[str, ...],
) -> list[str]:
    """Returns the names of the model that the file may lack."""

    def is_new(name: str) -> bool:
        return any(f.is_fresh(name) for f in formats)

    lacks_new = not any(is_new(name) for name in source)
    return [name for name in targets if name.startswith(added) or (lacks_new and is_new(name))]


def _families(model: nn.Module) -> list[str]:
    return [cls.__name__ for cls in type(model).__mro__]


def _overlap(state_dict: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> int:
    return sum(target.numel() for name, target in targets.items() if name in state_dict)


def _fit(model: nn.Module, name: str, value: Tensor, target: Tensor) -> tuple[Tensor | None, bool]:
    """Returns the value in the target's shape (None: impossible) and whether it was resized."""
    if value.shape == target.shape:
        return value, False
    if _without_trailing_ones(value) == _without_trailing_ones(target):
        return value.reshape(target.shape), False
    adapt = getattr(model, 'adapt_parameter', None)
    if value.is_floating_point():
        value = value.to(target.dtype)  # in a shorter type of the file the result would be rounded
    adapted = adapt(name, value) if adapt is not None else None
    if adapted is None or adapted.shape != target.shape:
        return None, False
    return adapted, True


def _without_trailing_ones(tensor: Tensor) -> list[int]:
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return shape


def _require_share(
    model: nn.Module,
    report: LoadReport,
    fitting: Mapping[str, Tensor],
    known: CheckpointFormat | None,
    source: Mapping[str, Tensor],
) -> None:
    sizes = {n: p.numel() for n, p in model.named_parameters() if n not in report.fresh}
    share = sum(size for n, size in sizes.items() if n in fitting) / max(sum(sizes.values()), 1)
    if share >= MIN_SHARE:
        return
    family = type(model).__name__
    if known is None:
        origin = 'Its names are those of no family this package knows.'
    elif known.backbone not in _families(model):
        origin = (
            f'By its names it is a {known.name} checkpoint, '
            f"for type='attnpool_backbones.{known.backbone}'."
        )
    else:
        origin = f'By its names it is a {known.name} checkpoint, so perhaps of another arch.'
    shapes = [f'{name} ({text})' for name, text in report.misshapen.items()]
    raise CheckpointMismatch(
        f'{report.checkpoint} has only {share:.1%} of the parameters of this {family}, at least '
        f'{MIN_SHARE:.0%} are needed. {origin}\n'
        f'  in the file: {list_names(source)}\n'
        f'  in the model: {list_names(sizes)}'
        + (f'\n  of other shapes: {list_names(shapes)}' if shapes else '')
    )
