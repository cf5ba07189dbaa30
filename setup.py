import gzip
import os
import re
import shutil
import tarfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
# Times of everything in a built package, so that equal sources give equal files.
EPOCH = os.environ.setdefault('SOURCE_DATE_EPOCH', '1735689600')

# The OpenMMLab packages are extras, and only extras, so that installing this package alone never
# puts them over the `onedl-*` distributions of the same modules. The extras name the upstream
# stack: its mmdet and mmseg refuse mmcv 2.2, its mmengine needs setuptools with pkg_resources.
# mmcv-lite has no compiled operators, for which this package's stand in; it goes beside no mmcv.
OPENMMLAB = ['mmengine>=0.10', 'mmcv-lite>=2.0,<2.2', 'setuptools<81']
DET = [*OPENMMLAB, 'mmdet>=3.0', 'pycocotools', 'hotcoco>=1.3']
SEG = [*OPENMMLAB, 'mmsegmentation>=1.0', 'ftfy', 'regex']
TOOLS = ['matplotlib', 'rich', 'scikit-learn']
SLICES = ['sahi']  # large images in overlapping parts
PEERS = ['timm']  # whose models the benchmark measures beside ours
# Trained models as ONNX files, which resize as mmcv does and tell masks as COCO's run lengths.
EXPORT = [*OPENMMLAB, 'onnx', 'onnxruntime', 'onnxscript', 'pycocotools']
DEV = ['hypothesis', 'pre-commit', 'pytest', 'pytest-xdist', 'ruff']


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


class ReproducibleSdist(sdist):
    """Writes an archive that depends on what is in the files alone."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, **_):
        if format != 'gztar':
            raise ValueError(f'no form of a source distribution: {format}, choose gztar')

        def plain(member):
            member.mtime = int(EPOCH)
            member.uid = member.gid = 0
            member.uname = member.gname = ''
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        path = f'{base_name}.tar.gz'
        files = sorted(Path(base_dir).rglob('*'))
        with open(path, 'wb') as raw, gzip.GzipFile('', 'wb', 9, raw, mtime=int(EPOCH)) as packed:
            with tarfile.open(fileobj=packed, mode='w', format=tarfile.PAX_FORMAT) as archive:
                for file in files:
                    archive.add(file, recursive=False, filter=plain)
        return path


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
    package_data={'attnpool_backbones': ['py.typed']},
    cmdclass={'build_py': BuildWithConfigs, 'sdist': ReproducibleSdist},
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
        'export': EXPORT,
        'openvino': [*EXPORT, 'openvino'],
        'all': sorted({*DET, *SEG, *TOOLS, *SLICES, *EXPORT}),
        'peers': PEERS,
        'dev': DEV,
    },
)
