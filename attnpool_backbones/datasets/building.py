"""Data sets of a config as training builds them, but without their data."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import Registry

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name

__all__ = ['build_dataset', 'classes_of', 'innermost', 'wrong_classes']


def innermost(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the configs of the data sets inside of wrappers.

    Args:
        dataset: Config of a data set, or of a wrapper of one (`dataset`) or several (`datasets`).
    """
    inner = [*(dataset.get('datasets') or ())]
    if dataset.get('dataset') is not None:
        inner.append(dataset['dataset'])
    if not inner:
        yield dataset
    for wrapped in inner:
        yield from innermost(wrapped)


def build_dataset(dataset: Mapping[str, Any], registry: Registry, **settings: Any) -> Any:
    """Builds a data set in the scope of its own library, whatever the default scope is.

    Args:
        dataset: Its config.
        registry: `DATASETS` of mmdet or of mmseg.
        **settings: Arguments in place of the config's.

    Raises:
        UserError: It cannot be built; the message says why.
    """
    try:
        return registry.build(dict(dataset, **settings, _scope_=registry.scope))
    except Exception as error:  # of arguments of any kind, in code of any kind
        raise UserError(
            f'the data set {type_name(dataset)} cannot be built: {type(error).__name__}: {error}'
        ) from error


def classes_of(kind: type, dataset: Mapping[str, Any]) -> Any:
    """Returns the classes as a data set takes them from its config; they may be of any type.

    Args:
        kind: The class of the data set.
        dataset: Its config.
    """
    return kind._load_metainfo(dataset.get('metainfo')).get('classes')


def wrong_classes(classes: Any) -> str:
    """Tells what is wrong with the classes of a data set, nothing if they are names."""
    if isinstance(classes, str):
        return f'classes={classes!r} is a text; one class needs a comma: classes=({classes!r},)'
    if not isinstance(classes, (list, tuple)) or not classes:
        return f'classes={classes!r}, not a tuple of names: metainfo=dict(classes=(...))'
    names = [name for name in classes if not isinstance(name, str)]
    if names:
        return f'classes has {names[0]!r}, which is no name'
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    return f'classes has {", ".join(twice)} more than once' if twice else ''
