"""Tables of what is to be reached, and whether it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from attnpool_backbones.benchmark.cases import size_text
from attnpool_backbones.benchmark.operators import PREFIX, is_operator, memory_of
from attnpool_backbones.benchmark.relative_speed import Row
from attnpool_backbones.benchmark.targets import Target, measured_value, targets
from attnpool_backbones.markdown import markdown_table

TIMES = ('operator', 'size', 'batch', 'pass', 'ours ms', 'compiled ms', 'compiled / ours', 'goal',
         'spread of ours', 'met')  # fmt: skip
MEMORY = ('operator', 'size', 'pass', 'input and output MB', 'peak MB', 'of input and output',
          'goal', 'met')  # fmt: skip


def target_table(results: Sequence[Row], machine: Mapping[str, Any]) -> str:
    """Returns all targets of backbones, and those others that were measured; empty without any.

    Args:
        results: Of a benchmark.
        machine: What they were measured on.
    """
    rows, measured = [], False
    for target in targets():
        value = measured_value(target, results)
        if value is not None:
            measured = True
            rows.append([target.text, _bound(target), _value(target, value), _met(target, value)])
        elif all(case.is_network for case in target.cases):  # others have suites of their own
            emulated = any(case.dtype == 'bfloat16' for case in target.cases)
            missing = emulated and not machine['bfloat16_instructions']
            state = 'no bfloat16 instructions here' if missing else 'not measured'
            rows.append([target.text, _bound(target), '-', state])
    return markdown_table(('figure', 'target', 'measured', 'met'), rows) if measured else ''


def operator_tables(results: Sequence[Row]) -> str:
    """Returns the times and the memory of operators, empty if none was measured.

    Args:
        results: Of a benchmark.
    """
    times, memory = [], []
    for target in targets():
        if not is_operator(target.cases[0].model):
            continue
        value = measured_value(target, results)
        if value is None:
            continue
        if target.kind == 'speedup':
            times.append(_time_cells(target, value, results))
        else:
            memory.append(_memory_cells(target, value))
    tables = [markdown_table(TIMES, times)] * bool(times)
    tables += [markdown_table(MEMORY, memory)] * bool(memory)
    return '\n'.join(tables)


def _time_cells(target: Target, value: float, results: Sequence[Row]) -> list[str]:
    case = target.cases[0]
    ours = next(
        row
        for row in results
        if row['quantity'] == 'time'
        and row['form'] == 'ours'
        and all(row[name] == getattr(case, name) for name in ('model', 'size', 'batch', 'task'))
    )
    milliseconds = 1000 * ours['seconds']
    return [
        case.model.removeprefix(PREFIX),
        size_text(case.size),
        str(case.batch),
        case.task,
        f'{milliseconds:.3g}',
        f'{milliseconds * value:.3g}',
        f'{value:.2f}',
        f'at least {target.bound:g}',
        f'{100 * ours["spread"]:.0f} %',
        _met(target, value),
    ]


def _memory_cells(target: Target, value: float) -> list[str]:
    case, given = target.cases[0], memory_of(target.cases[0])
    return [
        case.model.removeprefix(PREFIX),
        size_text(case.size),
        case.task,
        f'{given / 1e6:.1f}',
        f'{(given + value) / 1e6:.1f}',
        f'{(given + value) / given:.2f}',
        f'at most {(given + target.bound) / given:g}',
        _met(target, value),
    ]


def _bound(target: Target) -> str:
    sign = 'at least' if target.kind == 'speedup' else 'at most'
    return f'{sign} {_value(target, target.bound)}'


def _value(target: Target, value: float) -> str:
    formats = {
        'added': lambda v: f'{v / 1e6:.1f} MB',
        'speedup': lambda v: f'{v:.2f}x',
        'overhead': lambda v: f'{100 * v:+.1f} %',
        'peak': lambda v: f'{v / 1e9:.2f} GB',
        'exponent': lambda v: f'{v:.2f}',
    }
    return formats[target.kind](value)


def _met(target: Target, value: float) -> str:
    return 'yes' if target.is_met(value) else '**no**'
