"""What a backbone's constructor is given, checked and turned into numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

__all__ = ['drop_path_rates', 'resolve_arch', 'resolve_out_indices', 'taps_of_depth']


def resolve_arch(
    arch: str | Mapping[str, Any], kind: type, archs: Mapping[str, Any], family: str
) -> Any:
    """Returns the variant that a constructor's ``arch`` means.

    Args:
        arch: A name (case does not matter), a mapping of the fields, or a variant itself. A mapping
            with an entry ``base``, the name of a variant, changes the other fields in it.
        kind: Dataclass of the family's variants.
        archs: The family's named variants.
        family: Name of the backbone, for messages.

    Raises:
        ValueError: An unknown name, an unknown field or a missing one.
        TypeError: Neither a name nor a mapping.
    """
    if isinstance(arch, kind):
        return arch
    if isinstance(arch, str):
        if arch.lower() not in archs:
            raise ValueError(
                f"{family} has no arch '{arch}'; choose one of {', '.join(archs)} "
                f'or give a dict with the fields of {family}.Arch'
            )
        return archs[arch.lower()]
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch of {family} must be a name or a dict, not {arch!r}')
    arch = dict(arch)
    base = arch.pop('base', None)
    if base is not None:
        base = resolve_arch(base, kind, archs, family)
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    unknown = sorted(set(arch) - set(known))
    missing = [
        name for name, needed in known.items() if needed and base is None and name not in arch
    ]
    if unknown or missing:
        raise ValueError(
            f'arch of {family}: unknown fields {unknown}, missing fields {missing}; '
            f'the fields are {", ".join(known)}, and base, the name of a variant to start from'
        )
    return kind(**arch) if base is None else replace(base, **arch)


def resolve_out_indices(
    out_indices: int | Sequence[int], depth: int, family: str
) -> tuple[int, ...]:
    """Returns ``out_indices`` as ascending, non-negative stage numbers.

    Args:
        out_indices: As a constructor takes them; negative ones count from the end.
        depth: Number of stages (columnar: blocks) of the variant.
        family: Name of the backbone, for messages.

    Raises:
        ValueError: Out of range, repeated, unsorted or empty.
    """
    indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    resolved = tuple(i + depth if i < 0 else i for i in indices)
    in_range = all(0 <= i < depth for i in resolved)
    if not resolved or not in_range or list(resolved) != sorted(set(resolved)):
        raise ValueError(
            f'out_indices={out_indices} of {family} must be ascending, without '
            f'repetition, and lie in 0..{depth - 1} (or -{depth}..-1)'
        )
    return resolved


def taps_of_depth(depth: int) -> tuple[int, ...]:
    """Returns the blocks at 1/3, 1/2, 2/3 and 1 of a column's depth (0-based, as XCiT taps it)."""
    return tuple(sorted({max(int(depth * f + 0.5), 1) - 1 for f in (1 / 3, 1 / 2, 2 / 3, 1)}))


def drop_path_rates(rate: float, schedule: str, depth: int) -> list[float]:
    """Returns the drop-path rate of each of ``depth`` blocks.

    Args:
        rate: Rate of the last block.
        schedule: ``'linear'`` from 0 in the first block, or ``'constant'``.
        depth: Number of blocks of the whole variant.

    Raises:
        ValueError: An unknown schedule or a rate outside 0 <= rate < 1.
    """
    if schedule not in ('linear', 'constant') or not 0 <= rate < 1:
        raise ValueError(
            f"drop path needs 0 <= rate < 1 and schedule 'linear' or 'constant', "
            f"not rate={rate}, schedule='{schedule}'"
        )
    if schedule == 'constant':
        return [rate] * depth
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
