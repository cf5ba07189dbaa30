"""Whether the weights of a file are those of a model, told by their names and shapes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from copy import copy
from typing import TypeVar

from torch import Size, Tensor, nn

from attnpool_backbones.checkpoints.errors import CheckpointMismatch
from attnpool_backbones.checkpoints.message_texts import list_names, shape_text
from attnpool_backbones.checkpoints.wrapped_names import MODULE, WRAPPERS, short_name

__all__ = [
    'Shapes',
    'as_loaded',
    'is_statistic',
    'model_shapes',
    'names_in_model',
    'require_no_lookalikes',
    'require_whole_model',
    'shapes_of',
    'tensors_of',
]

Shapes = Mapping[str, Size]

_Value = TypeVar('_Value')
_STATISTICS = ('running_mean', 'running_var')
_DEEPEST_PREFIX = 2


def tensors_of(weights: Mapping[str, object]) -> dict[str, Tensor]:
    """Returns the tensors among some values."""
    return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}


def shapes_of(weights: Mapping[str, object]) -> dict[str, Size]:
    """Returns the shapes of the tensors among some values."""
    return {name: value.shape for name, value in tensors_of(weights).items()}


def model_shapes(model: nn.Module) -> dict[str, Size]:
    """Returns what a model computes with: its parameters, and running statistics of its norms."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, value in model.named_buffers():
        if is_statistic(name):
            shapes[name] = value.shape
    return shapes


def is_statistic(name: str) -> bool:
    """Tells by a name whether a buffer is a running statistic of a norm."""
    return name.rpartition('.')[2] in _STATISTICS


def names_in_model(stored: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """Tells what names of a file are called in a model.

    What wrappers put into names on either side does not count; nor does a prefix before all names
    of the file, such as Lightning's ``model.``, if more than half of the names are the model's
    after it.

    Args:
        stored: Names in the file.
        targets: Names in the model.

    Returns:
        The model's name of every name in the file; a name that the model has not stays as it is.
    """
    stored, targets = list(stored), set(targets)
    by_short = {short_name(name, (*WRAPPERS, MODULE)): name for name in targets}

    def translated(prefix: str = '') -> dict[str, str]:
        found = {}
        for name in stored:
            inner = name.removeprefix(prefix)
            if inner in targets:
                found[name] = inner
            elif (short := short_name(inner, (*WRAPPERS, MODULE))) in by_short:
                found[name] = by_short[short]
        return found

    known = translated()
    if not known:
        prefixes: Counter[str] = Counter()
        for name in stored:
            parts = name.split('.', _DEEPEST_PREFIX)
            prefixes.update('.'.join(parts[:depth]) + '.' for depth in range(1, len(parts)))
        for prefix, count in prefixes.most_common(_DEEPEST_PREFIX):
            if 2 * len(found := translated(prefix)) > count > len(stored) // 2:
                known = found
    return {name: known.get(name, name) for name in stored}


def as_loaded(weights: Mapping[str, _Value], model: nn.Module) -> dict[str, _Value]:
    """Returns weights by the names under which a model itself takes them.

    Models of mmdet rename when they are loaded: the weights of a detector become those of
    SoftTeacher's student and teacher, the head of an RPN that of a two-stage detector.

    Args:
        weights: Weights, or their shapes, by the names of :func:`names_in_model`.
        model: Stays as it is.
    """
    found = dict(weights)
    if type(model)._load_from_state_dict is not nn.Module._load_from_state_dict:
        bare = copy(model)  # with nothing of its own that would be loaded
        vars(bare).update(_parameters={}, _buffers={}, _load_state_dict_pre_hooks={})
        bare._load_from_state_dict(found, '', {}, False, [], [], [])
    return found


def require_whole_model(model: nn.Module, stored: Shapes, path: str) -> None:
    """Checks that a file has every parameter of a model, and all statistics of its norms.

    Args:
        model: As it is built.
        stored: Shapes in the file, by the model's names.
        path: The file, for the message.

    Raises:
        CheckpointMismatch: It has not; the message names what is missing or of another shape.
    """
    targets = model_shapes(model)
    missing = [name for name in targets if name not in stored]
    misshapen = [f'{n} ({shape_text(stored[n])} there, {shape_text(shape)} here)'
                 for n, shape in targets.items() if n in stored and stored[n] != shape]  # fmt: skip
    if not missing and not misshapen:
        return
    fitting = len(targets) - len(missing) - len(misshapen)
    foreign = [name for name in stored if name not in model.state_dict()]
    lines = [
        f'{path} has only {fitting} of the {len(targets)} parameters of this '
        f'{type(model).__name__}, all are needed. It is of another model than the config, or the '
        'numbers of classes differ.'
    ]
    for what, names in (
        ('not in the file', missing),
        ('of other shapes', misshapen),
        ('only in the file', foreign),
    ):
        if names:
            lines.append(f'  {what}: {list_names(names)}')
    raise CheckpointMismatch('\n'.join(lines))


def require_no_lookalikes(targets: Shapes, stored: Shapes, path: str, remedy: str) -> None:
    """Checks that no part of a model stays random whose weights are in a file by other names.

    Looked at are layers of which the file has no parameter at all, for each part of the model
    (``backbone``, ``layer1``, ...) by itself. If at least half of their parameters have the shape
    of one that the file has and the model has not, they are taken for the same.

    Args:
        targets: Shapes in the model, without those that may be missing.
        stored: Shapes in the file, by the model's names.
        path: The file, for the message.
        remedy: What to do if they are not the same, for the message.

    Raises:
        CheckpointMismatch: There is such a part.
    """
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for name in targets:
        layers[name.rpartition('.')[0]].append(name)
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for layer, names in layers.items():
        if not any(name in stored for name in names):
            parts[layer.partition('.')[0]].extend(names)
    unexpected = {name: shape for name, shape in stored.items() if name not in targets}
    spare = Counter(unexpected.values())
    missing: list[str] = []
    for names in parts.values():
        alike = Counter(targets[name] for name in names) & spare
        if sum(alike.values()) >= max(2, len(names) / 2):
            missing += names
            spare -= alike
    if not missing:
        return
    shapes = {targets[name] for name in missing}
    similar = [name for name, shape in unexpected.items() if shape in shapes]
    raise CheckpointMismatch(
        f'{path} lacks whole layers, {len(missing)} parameters, which would stay random, but has '
        f'{len(similar)} unknown ones of the same shapes: perhaps the same by other names. '
        f'{remedy}\n  not in the file: {list_names(missing)}\n'
        f'  unknown in the file: {list_names(similar)}'
    )
