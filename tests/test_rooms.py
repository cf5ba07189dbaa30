"""The folders of the package, its rooms, build on each other one way."""

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import attnpool_backbones

PACKAGE = Path(attnpool_backbones.__file__).parent
NAME = PACKAGE.name


def imported_rooms(file: Path) -> set[str]:
    """Returns the rooms that a file imports something of, also inside of functions."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        modules = []
        if isinstance(node, ast.ImportFrom):
            modules = [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            package, *inside = module.split('.')
            if package == NAME and inside and (PACKAGE / inside[0]).is_dir():
                rooms.add(inside[0])
    return rooms


def test_no_two_rooms_import_each_other():
    needs = defaultdict(set)
    for file in sorted(PACKAGE.glob('*/**/*.py')):
        room = file.relative_to(PACKAGE).parts[0]
        needs[room] |= imported_rooms(file) - {room}
    assert {'ops', 'layers', 'backbones', 'launching'} <= set(needs)
    # raises graphlib.CycleError, which names the circle
    order = list(TopologicalSorter(needs).static_order())
    assert order.index('ops') < order.index('layers') < order.index('backbones')
