import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

# The OpenMMLab packages are extras, and only extras, so that installing this package alone never
# puts them over the `onedl-*` distributions of the same modules. The extras name the upstream
# stack: its mmdet and mmseg refuse mmcv 2.2, its mmengine needs setuptools with pkg_resources.
# mmcv-lite has no compiled operators, for which this package's stand in; it goes beside no mmcv.
OPENMMLAB = ['mmengine>=0.10', 'mmcv-lite>=2.0,<2.2', 'setuptools<81']
DET = [*OPENMMLAB, 'mmdet>=3.0', 'pycocotools']
SEG = [*OPENMMLAB, 'mmsegmentation>=1.0', 'ftfy', 'regex']
TOOLS = ['matplotlib', 'rich', 'scikit-learn']
SLICES = ['sahi']  # large images in overlapping parts
DEV = ['hotcoco', 'hypothesis', 'pre-commit', 'pytest', 'pytest-xdist', 'ruff']


class BuildWithConfigs(build_py):
    """Copies `configs` and `model-index.yml`, where mim looks for them, into the built package."""

    def run(self):
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, 'attnpool_backbones')
            target = package / 'configs'
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / 'configs', target, ignore=shutil.ignore_patterns('__pycache__'))
            shutil.copy(ROOT / 'model-index.yml', package)


def version() -> str:
    text = (ROOT / 'attnpool_backbones' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '(.+)'", text).group(1)


setup(
    name='attnpool_backbones',
    version=version(),
    description='OpenMMLab backbones that rethink how tokens are pooled and attended',
    license='Apache-2.0',
    packages=find_packages(include=['attnpool_backbones', 'attnpool_backbones.*']),
    entry_points={'console_scripts': ['attnpool = attnpool_backbones.cli:main']},
    cmdclass={'build_py': BuildWithConfigs},
    python_requires='>=3.10',
    # isal: checksums at the speed of reading; zlib's serve where it has no wheel.
    install_requires=[
        'torch>=2.6',
        'numpy',
        'safetensors',
        'isal; platform_machine in "x86_64 AMD64 aarch64 arm64"',
    ],
    extras_require={
        'det': DET,
        'seg': SEG,
        'slices': SLICES,
        'all': sorted({*DET, *SEG, *TOOLS, *SLICES}),
        'dev': DEV,
    },
)
