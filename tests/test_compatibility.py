import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from attnpool_backbones import compatibility
from attnpool_backbones.compatibility import (
    NEEDS,
    IncompatibleEnvironment,
    check_environment,
    missing_module,
)


class FakeTensor:
    def numpy(self) -> None:
        return None


class UnreadableTensor:
    def numpy(self) -> None:
        raise RuntimeError('Numpy is not available')


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f'No module named {name!r}', name=name)


def is_installed_without_pkg_resources(package: str) -> bool:
    raise missing('pkg_resources')


def working_modules() -> dict:
    versions = {
        'numpy': '2.4.6',
        'torch': '2.13.0+cpu',
        'mmengine': '0.10.7',
        'cv2': '5.0.0',
        'mmcv': '2.1.0',
        'mmdet': '3.3.0',
        'mmseg': '1.2.2',
    }
    modules = {name: SimpleNamespace(__version__=version) for name, version in versions.items()}
    modules['torch'].zeros = lambda size: FakeTensor()
    modules['mmengine.utils'] = SimpleNamespace(is_installed=lambda package: True)
    for requirement in (entry for entries in NEEDS.values() for entry in entries):
        modules.setdefault(requirement.module, SimpleNamespace())
    return modules


@pytest.fixture
def modules(monkeypatch):
    """What importing gives inside the checks: a module, or the exception that it raises."""
    table = working_modules()

    def fake_import(name: str):
        entry = table.get(name, missing(name))
        if isinstance(entry, Exception):
            raise entry
        return entry

    monkeypatch.setattr(compatibility, 'import_module', fake_import)
    return table


def problems_of(*needs: str) -> list:
    with pytest.raises(IncompatibleEnvironment) as caught:
        check_environment(*needs)
    for problem in caught.value.problems:
        assert problem.what in str(caught.value) and problem.cure in str(caught.value)
    return caught.value.problems


def test_working_environment_gives_versions(modules):
    versions = check_environment(*NEEDS)
    assert versions['torch'] == '2.13.0+cpu'
    assert versions['mmdet'] == '3.3.0'
    assert 'mmcv.ops' not in versions


def test_versions_of_the_fork_are_accepted(modules):
    fork = dict(mmcv='2.3.6', mmengine='0.10.12', mmdet='3.5.1', mmseg='1.4.2')
    for name, version in fork.items():
        modules[name].__version__ = version
    assert check_environment('det', 'seg')['mmcv'] == '2.3.6'


CASES = {
    'torch missing': ({'torch': missing('torch')}, 'torch is missing', 'pip install "torch>=2.6"'),
    'torch too old': (
        {'torch': SimpleNamespace(__version__='2.5.1', zeros=lambda size: FakeTensor())},
        'torch 2.5.1 is too old, 2.6',
        'pip install "torch>=2.6"',
    ),
    'torch for another numpy': (
        {'torch': SimpleNamespace(__version__='2.6.0', zeros=lambda size: UnreadableTensor())},
        'torch 2.6.0 and numpy 2.4.6 cannot exchange arrays',
        '"numpy<2"',
    ),
    'safetensors missing': (
        {'safetensors': missing('safetensors')},
        'safetensors is missing',
        'pip install safetensors',
    ),
    'mmengine missing': (
        {'mmengine': missing('mmengine')},
        'mmengine is missing',
        'pip install mmengine==0.10.7',
    ),
    'mmengine too old': (
        {'mmengine': SimpleNamespace(__version__='0.9.1')},
        'mmengine 0.9.1 is too old',
        'pip install mmengine==0.10.7',
    ),
    'mmengine without pkg_resources': (
        {'mmengine.utils': SimpleNamespace(is_installed=is_installed_without_pkg_resources)},
        'mmengine needs pkg_resources',
        'pip install "setuptools<81"',
    ),
    'mmcv missing': ({'mmcv': missing('mmcv')}, 'mmcv is missing', 'mmcv-lite==2.1.0'),
    'mmcv too old': (
        {'mmcv': SimpleNamespace(__version__='1.7.1')},
        'mmcv 1.7.1 is too old',
        'pip uninstall -y mmcv mmcv-full mmcv-lite && pip install mmcv-lite==2.1.0',
    ),
    'mmcv without operators': (
        {'mmcv.ops': missing('mmcv.ops')},
        'mmcv has no operators',
        'pip install mmcv-lite==2.1.0',
    ),
    'mmcv operators for another torch': (
        {'mmcv.ops': ImportError('_ext.so: undefined symbol: _ZN3c105ErrorC2E')},
        'built for another torch',
        '--no-build-isolation',
    ),
    'mmdet missing': ({'mmdet': missing('mmdet')}, 'mmdet is missing', 'pip install mmdet==3.3.0'),
    'mmdet refuses mmcv': (
        {'mmdet': AssertionError('MMCV==2.2.0 is used but incompatible. Please install')},
        'mmdet refuses the other packages: MMCV==2.2.0',
        'mmcv-lite==2.1.0',
    ),
    'mmdet refuses mmengine': (
        {'mmdet': AssertionError('MMEngine==1.0.0 is used but incompatible.')},
        'mmdet refuses the other packages: MMEngine==1.0.0',
        'pip install mmengine==0.10.7',
    ),
    'mmdet lacks imgaug': (
        {'mmdet': missing('imgaug')},
        'it needs imgaug, which is missing',
        'pip install imgaug',
    ),
    'mmdet lacks sklearn': (
        {'mmdet': missing('sklearn')},
        'it needs sklearn, which is missing',
        'pip install scikit-learn',
    ),
    'mmengine lacks yaml': (
        {'mmengine': missing('yaml')},
        'mmengine cannot be imported, it needs yaml',
        'pip install pyyaml',
    ),
    'mmcv lacks PIL': ({'mmcv': missing('PIL')}, 'it needs PIL', 'pip install pillow'),
    'mmseg missing': (
        {'mmseg': missing('mmseg')},
        'mmseg is missing',
        'pip install mmsegmentation==1.2.2',
    ),
    'mmseg refuses mmcv': (
        {'mmseg': AssertionError('MMCV==2.2.0 is used but incompatible.')},
        'mmseg refuses the other packages',
        'mmcv-lite==2.1.0',
    ),
    'ftfy missing': ({'ftfy': missing('ftfy')}, 'ftfy is missing', 'pip install ftfy'),
    'regex missing': ({'regex': missing('regex')}, 'regex is missing', 'pip install regex'),
    'pycocotools for another numpy': (
        {'pycocotools': ValueError('numpy.dtype size changed, expected 96')},
        'pycocotools was built for another numpy',
        'pip install pycocotools --force-reinstall',
    ),
    'cv2 without libGL': (
        {'cv2': ImportError('libGL.so.1: cannot open shared object file')},
        'cv2 lacks a library of the system: libGL.so.1',
        'opencv-python-headless',
    ),
    'anything else': (
        {'mmdet': OSError('disk on fire')},
        'mmdet cannot be imported: OSError: disk on fire',
        'pip install mmdet==3.3.0',
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_each_problem_is_named_with_its_cure(modules, name):
    changes, what, cure = CASES[name]
    modules.update(changes)
    found = problems_of('det', 'seg')
    assert len(found) == 1, found
    assert what in found[0].what
    assert cure in found[0].cure


def test_everything_is_listed_at_once_and_causes_only_once(modules):
    modules.update(
        {
            'mmcv': missing('mmcv'),
            'mmcv.ops': missing('mmcv'),
            'mmdet': missing('mmcv'),
            'mmseg': missing('mmseg'),
            'ftfy': missing('ftfy'),
            'regex': missing('regex'),
        }
    )
    whats = [problem.what.split()[0] for problem in problems_of('det', 'seg')]
    assert whats == ['mmcv', 'mmseg', 'ftfy', 'regex']


@pytest.mark.parametrize(
    ('changes', 'whats'),
    [
        # what a fresh wheel lacks comes all at once
        ({'mmcv': missing('mmcv'), 'cv2': missing('cv2')}, ['cv2 is', 'mmcv is']),
        ({'mmcv.ops': missing('mmcv.ops')}, ['mmcv has no operators']),
        ({}, [f'matplotlib is missing (for {__name__})']),
    ],
)
def test_imports_that_fail_in_a_command(modules, changes, whats):
    modules.update(changes)
    names = [*changes, 'matplotlib']
    try:
        raise missing(names[0])
    except ModuleNotFoundError as error:
        found = missing_module(error).problems
    assert len(found) == len(whats)
    assert all(problem.what.startswith(what) for problem, what in zip(found, whats, strict=True))
    assert not changes or 'matplotlib' not in str(found)


@pytest.mark.parametrize(
    'error',
    [
        missing('attnpool_backbones.gone'),
        missing('mmdet.gone'),
        ModuleNotFoundError('install mpi4py first'),
        ModuleNotFoundError("No module named 'mmcv._ext': build mmcv", name='mmcv._ext'),
    ],
)
def test_other_failing_imports_stay_what_they_are(modules, error):
    assert missing_module(error) is None


def distribution(folder, name: str, version: str) -> None:
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    (info / 'RECORD').write_text('mmcv/__init__.py,,\n')


def test_two_mmcv_over_each_other(modules, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    distribution(tmp_path, 'mmcv', '2.2.0')
    distribution(tmp_path, 'mmcv-lite', '2.1.0')
    (problem,) = problems_of('train')
    assert 'mmcv 2.2.0 and mmcv-lite 2.1.0 are the same module' in problem.what
    assert problem.cure == 'pip uninstall -y mmcv mmcv-lite && pip install mmcv-lite==2.1.0'
    check_environment('core')


def test_two_mmcv_that_do_not_mix(modules, tmp_path, monkeypatch):
    # equal files, and those of another folder, which are not seen
    for name, version in (('one', '2.1.0'), ('other', '2.2.0')):
        monkeypatch.syspath_prepend(tmp_path / name)
        distribution(tmp_path / name, 'mmcv', version)
    distribution(tmp_path / 'one', 'mmcv-lite', '2.1.0')
    check_environment('train')


def test_extras_are_named_where_they_are_safe(modules, monkeypatch):
    installed = {'attnpool_backbones': '0.1.0'}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(compatibility.metadata, 'version', version)
    modules['mmengine'] = missing('mmengine')
    for found, told in (({}, True), ({'/a/mmcv': {'mmcv': '2.1.0'}}, False)):
        monkeypatch.setattr(compatibility, '_mmcv_versions', lambda found=found: found)
        with pytest.raises(IncompatibleEnvironment) as caught:
            check_environment('core')
        assert ("'attnpool_backbones[det]'" in str(caught.value)) == told
    # a name that is not installed would be looked for at PyPI
    installed.clear()
    monkeypatch.setattr(compatibility, '_mmcv_versions', dict)
    with pytest.raises(IncompatibleEnvironment) as caught:
        check_environment('core')
    assert 'attnpool_backbones[' not in str(caught.value)


def test_a_detection_user_needs_no_mmseg(modules):
    for name in ('mmseg', 'ftfy', 'regex', 'sklearn', 'matplotlib'):
        modules[name] = missing(name)
    assert 'mmseg' not in check_environment('det')


def test_python_that_is_too_old(modules, monkeypatch):
    monkeypatch.setattr(compatibility, 'sys', SimpleNamespace(version_info=(3, 9, 18)))
    assert [problem.what for problem in problems_of('core')] == [
        'Python 3.9.18 is not supported, 3.10 and later are'
    ]


def test_unknown_need_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"\['detection'\].*'core'.*'det'"):
        check_environment('core', 'detection')


def test_the_current_environment_passes():
    versions = check_environment(*NEEDS)
    assert versions['mmcv'] == importlib.import_module('mmcv').__version__


@pytest.mark.parametrize('need, status, stream', [('core', 0, 'stdout'), ('none', 1, 'stderr')])
def test_command_line(need, status, stream):
    command = [sys.executable, '-m', 'attnpool_backbones.compatibility', need]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert ('torch' if status == 0 else 'choose from') in getattr(done, stream)
    assert 'Traceback' not in done.stderr


def test_importing_the_package_imports_nothing_heavy():
    code = (
        'import sys, attnpool_backbones; print(attnpool_backbones.__version__, '
        "sorted({'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [compatibility_version(), '[]']


def compatibility_version() -> str:
    return importlib.import_module('attnpool_backbones.version').__version__
