"""Tells, all at once, what an environment lacks and which command cures it.

Command line: `python -m attnpool_backbones.compatibility det seg`. Import names are what counts,
which serves the upstream OpenMMLab stack and its `onedl-*` fork; distributions are asked for only
where two of them may have been written over each other.
"""

import argparse
import re
import sys
import traceback
import warnings
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from attnpool_backbones.python_3_14 import gives_back_find_loader

LOWEST_PYTHON = (3, 10)
# All of them own the folder `mmcv`, which pip does not know.
MMCV_DISTRIBUTIONS = ('mmcv', 'mmcv-full', 'mmcv-lite', 'onedl-mmcv')
INSTALL_MMCV = 'pip uninstall -y mmcv mmcv-full mmcv-lite && pip install mmcv-lite==2.1.0'
BUILD_MMCV = (
    'pip uninstall -y mmcv mmcv-full mmcv-lite && '
    'pip install "setuptools<81" wheel ninja psutil && '
    'pip install --no-build-isolation --no-cache-dir mmcv==2.1.0'
)


class Requirement(NamedTuple):
    """One module that must be importable.

    Attributes:
        module: The import name.
        minimum: The lowest version that works; '' accepts any.
        cure: The command that installs it.
        reason: What it is needed for.
    """

    module: str
    minimum: str
    cure: str
    reason: str


class Problem(NamedTuple):
    """Something missing or wrong, and the command that cures it."""

    what: str
    cure: str


_NUMPY = Requirement('numpy', '1.23', 'pip install "numpy>=1.23"', 'all arrays')
# 2.6 reads checkpoints as data by default and takes stand-ins for what else they name.
_TORCH = Requirement('torch', '2.6', 'pip install "torch>=2.6"', 'all models')
_SAFETENSORS = Requirement('safetensors', '', 'pip install safetensors', 'checkpoints')
_MMENGINE = Requirement('mmengine', '0.10', 'pip install mmengine==0.10.7', 'registry and runner')
_CV2 = Requirement('cv2', '', 'pip install opencv-python', 'reading images')
_MMCV = Requirement('mmcv', '2.0', INSTALL_MMCV, 'transforms and operators')
_MMCV_OPS = Requirement('mmcv.ops', '', INSTALL_MMCV, 'RoIAlign, NMS and other operators')
_MMDET = Requirement('mmdet', '3.0', 'pip install mmdet==3.3.0', 'detection')
_MMSEG = Requirement('mmseg', '1.0', 'pip install mmsegmentation==1.2.2', 'segmentation')
_COCO = Requirement('pycocotools', '', 'pip install pycocotools', 'COCO annotations and metrics')
_FTFY = Requirement('ftfy', '', 'pip install ftfy', 'mmseg, which does not declare it')
_REGEX = Requirement('regex', '', 'pip install regex', 'mmseg, which does not declare it')
_SKLEARN = Requirement('sklearn', '', 'pip install scikit-learn', 'the digit scenes')
_MATPLOTLIB = Requirement('matplotlib', '', 'pip install matplotlib', 'pictures')
_RICH = Requirement('rich', '', 'pip install rich', 'tables on screen')

_CORE = (_NUMPY, _TORCH, _SAFETENSORS, _MMENGINE)
_TRAIN = (*_CORE, _CV2, _MMCV, _MMCV_OPS)
NEEDS: dict[str, tuple[Requirement, ...]] = {
    'core': _CORE,
    'train': _TRAIN,
    'det': (*_TRAIN, _MMDET, _COCO),
    'seg': (*_TRAIN, _MMSEG, _FTFY, _REGEX),
    'scenes': (_NUMPY, _CV2, _SKLEARN, _COCO),
    'report': (_MATPLOTLIB, _RICH),
}
_DISTRIBUTIONS = {
    'PIL': 'pillow',
    'dateutil': 'python-dateutil',
    'google': 'protobuf',
    'pkg_resources': '"setuptools<81"',
    'yaml': 'pyyaml',
}
"""Import names that the packages above need -> what to install, where it has another name."""


class IncompatibleEnvironment(RuntimeError):
    """The environment lacks something, or holds versions that cannot work together.

    Attributes:
        problems: Everything that was found, in the order in which it should be cured.
    """

    def __init__(self, needs: tuple[str, ...], problems: list[Problem]) -> None:
        self.problems = problems
        lines = [f'this environment cannot run attnpool_backbones ({", ".join(needs)}):']
        for problem in problems:
            lines += [f'  - {problem.what}', f'      cure: {problem.cure}']
        lines.append(
            f'{_all_at_once()}`make setup` in a clone makes an environment that works. With the '
            '`onedl-*` fork install its packages of the same modules instead, never both.'
        )
        super().__init__('\n'.join(lines))


def check_environment(*needs: str) -> dict[str, str]:
    """Checks that everything the given uses need is there and works together.

    Args:
        *needs: Names out of `NEEDS`: 'core', 'train', 'det', 'seg', 'scenes' or 'report'.
            Default: 'core'.

    Returns:
        The version of each module that was checked, by import name.

    Raises:
        IncompatibleEnvironment: If anything is missing or wrong; the message lists all of it.
        ValueError: If a name is not in `NEEDS`.
    """
    needs = needs or ('core',)
    unknown = [need for need in needs if need not in NEEDS]
    if unknown:
        raise ValueError(f'unknown needs {unknown}, choose from {sorted(NEEDS)}')

    problems = _python_problems()
    requirements = dict.fromkeys(entry for need in needs for entry in NEEDS[need])
    if _MMCV in requirements:
        problems += _mixed_mmcv_problems()
    modules: dict[str, ModuleType] = {}
    broken: set[str] = set()
    for requirement in requirements:
        name = requirement.module
        if name.partition('.')[0] in broken:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                modules[name] = import_module(name)
        except Exception as error:
            broken.add(name)
            problem = _import_problem(requirement, error, broken)
        else:
            problem = _version_problem(requirement, modules[name])
        if problem is not None:
            problems.append(problem)

    if {'numpy', 'torch'} <= modules.keys():
        problems += _bridge_problems(modules['torch'], modules['numpy'])
    if 'mmengine' in modules:
        problems += _pkg_resources_problems()
    if problems:
        raise IncompatibleEnvironment(needs, list(dict.fromkeys(problems)))
    return {name: _version(module) for name, module in modules.items() if '.' not in name}


def missing_module(error: ModuleNotFoundError) -> IncompatibleEnvironment | None:
    """Explains why an import failed somewhere in a command.

    Args:
        error: As it was raised by an import statement.

    Returns:
        With all that a training lacks, or else with the module alone. None where no package is
        missing as a whole, or one of a library's own errors says more than a name.
    """
    name = error.name or ''
    if str(error) != f'No module named {name!r}' or name.startswith('attnpool_backbones'):
        return None
    try:
        check_environment('train')
    except IncompatibleEnvironment as found:
        return found
    if '.' in name:
        return None
    frames = [frame.f_globals['__name__'] for frame, _ in traceback.walk_tb(error.__traceback__)]
    users = [user for user in frames if not user.startswith(('importlib', '_frozen'))]
    problem = Problem(f'{name} is missing (for {users[-1]})', _cure_of(name))
    return IncompatibleEnvironment(('train',), [problem])


def _all_at_once() -> str:
    """Names the extras where they are at hand and would be written over nobody's mmcv."""
    try:
        metadata.version('attnpool_backbones')
    except metadata.PackageNotFoundError:
        return ''
    if _mmcv_versions():
        return ''
    return (
        "All at once: pip install 'attnpool_backbones[det]' (or [seg], [all]), torch 2.6 or later "
        'first. '
    )


def _mmcv_versions() -> dict[str, dict[str, str]]:
    """Returns folder of packages -> distributions that have put mmcv there -> their versions."""
    found: dict[str, dict[str, str]] = {}
    for name in MMCV_DISTRIBUTIONS:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if 'mmcv/__init__.py' in (distribution.read_text('RECORD') or ''):
            folder = str(Path(distribution.locate_file('mmcv')).resolve())
            found.setdefault(folder, {})[name] = distribution.version
    return found


def _mixed_mmcv_problems() -> list[Problem]:
    """Files of the one installed last lie among those of the other, and nothing says so."""
    return [
        Problem(
            f'{" and ".join(f"{name} {version}" for name, version in versions.items())} are the '
            f'same module and were installed over each other in {folder}',
            f'pip uninstall -y {" ".join(versions)} && pip install mmcv-lite==2.1.0',
        )
        for folder, versions in _mmcv_versions().items()
        if len(set(versions.values())) > 1
    ]


def _cure_of(module: str) -> str:
    name = module.partition('.')[0]
    known = {entry.module: entry.cure for entries in NEEDS.values() for entry in entries}
    return known.get(name) or f'pip install {_DISTRIBUTIONS.get(name, name)}'


def _python_problems() -> list[Problem]:
    if tuple(sys.version_info[:2]) >= LOWEST_PYTHON:
        return []
    found = '.'.join(map(str, sys.version_info[:3]))
    return [
        Problem(
            f'Python {found} is not supported, 3.10 and later are',
            'python3.11 -m venv NEW_FOLDER, and install everything there',
        )
    ]


def _import_problem(requirement: Requirement, error: Exception, broken: set[str]) -> Problem | None:
    """Translates a failed import; None if its cause is reported already."""
    name = requirement.module
    text = ' '.join(str(error).split())
    missing = error.name or '' if isinstance(error, ModuleNotFoundError) else ''
    if missing == 'pkg_resources':
        return _no_pkg_resources(name)
    if missing == 'mmcv.ops' and name == 'mmcv.ops':
        return Problem('mmcv has no operators (mmcv.ops), it is installed in part', INSTALL_MMCV)
    if missing == name:
        return Problem(f'{name} is missing (for {requirement.reason})', requirement.cure)
    if missing.partition('.')[0] in broken:
        return None
    if missing:
        return Problem(
            f'{name} cannot be imported, it needs {missing}, which is missing',
            _cure_of(missing),
        )
    if name == 'mmcv.ops' and re.search(r'undefined symbol|DLL load|\.so', text):
        return Problem(
            f'the operators of mmcv were built for another torch: {text}',
            f'{INSTALL_MMCV}   (or, to build them for this torch: {BUILD_MMCV})',
        )
    if isinstance(error, AssertionError) and re.search(r'MMCV|MMEngine', text):
        cure = INSTALL_MMCV if 'MMCV' in text else _MMENGINE.cure
        return Problem(f'{name} refuses the other packages: {text}', cure)
    if re.search(r'numpy', text, re.I) and re.search(r'ABI|size changed|multiarray|compiled', text):
        return Problem(
            f'{name} was built for another numpy: {text}',
            f'{requirement.cure} --force-reinstall --no-cache-dir --no-deps',
        )
    if name == 'cv2' and '.so' in text:
        return Problem(
            f'cv2 lacks a library of the system: {text}',
            'pip uninstall -y opencv-python && pip install opencv-python-headless',
        )
    return Problem(f'{name} cannot be imported: {type(error).__name__}: {text}', requirement.cure)


def _version_problem(requirement: Requirement, module: ModuleType) -> Problem | None:
    if not requirement.minimum:
        return None
    version = _version(module)
    if _numbers(version) >= _numbers(requirement.minimum):
        return None
    return Problem(
        f'{requirement.module} {version} is too old, {requirement.minimum} or later is needed',
        requirement.cure,
    )


def _bridge_problems(torch: ModuleType, numpy: ModuleType) -> list[Problem]:
    """A torch built against numpy 1 imports beside numpy 2, but cannot exchange arrays with it."""
    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        return [
            Problem(
                f'torch {_version(torch)} and numpy {_version(numpy)} cannot exchange arrays: '
                f'{error}',
                'pip install "numpy<2"   (or a torch built for numpy 2, as those of PyTorch are)',
            )
        ]
    return []


def _pkg_resources_problems() -> list[Problem]:
    """Asks mmengine itself, as only the upstream one needs `pkg_resources` (setuptools < 82)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            import_module('mmengine.utils').is_installed('mmengine')
    except ModuleNotFoundError as error:
        if error.name != 'pkg_resources':
            raise
        return [_no_pkg_resources('mmengine')]
    return []


def _no_pkg_resources(user: str) -> Problem:
    return Problem(
        f'{user} needs pkg_resources, which setuptools 82 removed', 'pip install "setuptools<81"'
    )


def _version(module: ModuleType) -> str:
    return str(getattr(module, '__version__', '0'))


def _numbers(version: str) -> tuple[int, ...]:
    """'2.13.0+cpu' gives (2, 13, 0)."""
    match = re.match(r'\d+(?:\.\d+)*', version)
    return tuple(map(int, match.group().split('.'))) if match else ()


def serving_operators(extension: ModuleType) -> str:
    """Tells whose operators `mmcv.ops` runs, given the module that answers as `mmcv._ext`."""
    if extension.__name__ == 'mmcv._ext':
        return f'compiled ({extension.__file__})'
    return f'plain torch ({extension.__name__})'


def main() -> int:
    """Tells what is missing; the command ``python -m attnpool_backbones.compatibility``."""
    parser = argparse.ArgumentParser(description='Says what this environment lacks, if anything.')
    parser.add_argument(
        'needs', nargs='*', help=f'what to check for: {", ".join(NEEDS)}; default: core'
    )
    try:
        versions = check_environment(*parser.parse_args().needs)
    except (IncompatibleEnvironment, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, version in versions.items():
        print(f'{name:12} {version if version != "0" else "(no version)"}')
        if name == 'mmcv':
            print(f'{"mmcv._ext":12} {serving_operators(import_module("mmcv._ext"))}')
    if gives_back_find_loader():
        print(f'{"pkgutil":12} find_loader by this package, for mmengine on Python 3.14')
    return 0


if __name__ == '__main__':
    sys.exit(main())
