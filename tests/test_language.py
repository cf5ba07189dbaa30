"""What ruff cannot hold of the language: one form of docstrings, the field's words."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    file for folder in ('attnpool_backbones', 'tools') for file in (ROOT / folder).rglob('*.py')
)
TEXTS = [*SOURCES, *(ROOT / 'tests').rglob('*.py'), *(ROOT / 'configs').rglob('*.py')]
TEXTS += [ROOT / name for name in ('README.md', 'CONTRIBUTING.md')]
TEXTS += [*(ROOT / 'docs').rglob('*.md'), *(ROOT / 'configs').rglob('*.md')]

WORDS = {
    r'\bin front of\b': 'before',
    r'\bstands? behind\b': 'comes after',
    r'\bperceptrons?\b': 'MLP',
    r'\bfeed-?forward\b': 'MLP',
    r'\bin place operation': 'in-place operation',
    r'\bDefaults? to\b': 'Default: ...',
    r'^\s*#: ': 'a docstring below the constant',
    r'^(<{7}|>{7}) ': 'one side of the merge',
}
"""Regular expression of a word -> what is written instead."""
ENTRY = re.compile(r'    (\*{0,2}\w+(?:, \*{0,2}\w+)*)( \(.*\))?: ')


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize('word', WORDS)
def test_words(word):
    found = [
        f'{name_of(file)}:{number}'
        for file in TEXTS
        if file != Path(__file__)
        for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1)
        if re.search(word, line)
    ]
    assert found == [], f'write: {WORDS[word]}'


def parameters(node: ast.AST) -> set[str] | None:
    """Returns what a function or a class takes; None for a class with a constructor elsewhere."""
    if isinstance(node, ast.FunctionDef):
        given = node.args
        names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        names += [f'*{given.vararg.arg}'] if given.vararg else []
        names += [f'**{given.kwarg.arg}'] if given.kwarg else []
        return set(names)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == '__init__':
            return parameters(part)
    fields = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
    return fields or None


def arguments(docstring: str) -> list[tuple[str, bool]]:
    """Returns the names of the section ``Args``, and whether a type comes after each."""
    lines = docstring.splitlines()
    if 'Args:' not in lines:
        return []
    entries = []
    for line in lines[lines.index('Args:') + 1 :]:
        if line and not line.startswith(' '):
            break
        if match := ENTRY.match(line):
            entries += [(name, bool(match[2])) for name in match[1].split(', ')]
    return entries


@pytest.mark.parametrize('file', SOURCES, ids=name_of)
def test_docstrings_name_the_parameters_without_types(file):
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        described = arguments(ast.get_docstring(node) or '')
        known = parameters(node)
        for name, typed in described:
            assert not typed, f'{node.name}: the type of {name} is in the signature'
            assert known is None or name in known, f'{node.name} has no {name}'
