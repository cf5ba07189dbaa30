"""Types in configs: a text, a text with a scope or a path in front, or the class itself.

`dict(type='Resize')`, `dict(type='mmdet.Resize')` and, in a config of pure Python,
`dict(type=Resize)` mean the same; what looks at a type, or for entries of one, asks here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import Registry

__all__ = ['config_entries', 'find_type', 'is_pretrained', 'type_name']


def config_entries(value: Any, key: str = '') -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields every dict of a config with its dotted key, outer ones first.

    Args:
        value: The config or a part of it.
        key: Its own key. Default: that of the whole config.
    """
    if isinstance(value, Mapping):
        yield key, value
        for name, inner in value.items():
            yield from config_entries(inner, f'{key}.{name}' if key else str(name))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from config_entries(inner, f'{key}[{index}]')


def type_name(entry: Any) -> str:
    """Returns the bare name of a type, such as 'Resize'.

    Args:
        entry: A type, or a dict that has one as `type`.

    Returns:
        The name; empty if there is none.
    """
    kind = entry.get('type') if isinstance(entry, Mapping) else entry
    if kind is None:
        return ''
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
    return name.rpartition('.')[2]


def find_type(entry: Any, registry: Registry) -> Any:
    """Returns the class or function that a type stands for, None if nobody knows it.

    Args:
        entry: A type, or a dict that has one as `type`.
        registry: Where texts are looked up.
    """
    kind = entry.get('type') if isinstance(entry, Mapping) else entry
    if isinstance(kind, str):
        return registry.get(kind)
    return kind if callable(kind) else None


def is_pretrained(entry: Any) -> bool:
    """Tells whether an entry of an `init_cfg` loads a checkpoint.

    Args:
        entry: A dict with a `type`, or None.
    """
    # the name in mmengine's registry and that of the class
    return type_name(entry) in ('Pretrained', 'PretrainedInit')
