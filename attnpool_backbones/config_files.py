"""Where the configs of this package are, in a clone and in an installed wheel."""

import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_root() -> Path:
    """Finds the folder with the configs of this package.

    Returns:
        `configs/` of the clone, or `attnpool_backbones/configs/` of an installed wheel.

    Raises:
        FileNotFoundError: If neither is there.
    """
    candidates = (_PACKAGE / 'configs', _PACKAGE.parent / 'configs')
    for folder in candidates:
        if (folder / '_base_').is_dir():
            return folder
    raise FileNotFoundError(
        f'no configs in {candidates[0]} nor in {candidates[1]}: the installation is incomplete'
    )


def source_digest(*more: Path) -> str:
    """Returns a digest of the package's code and configs, to tell whether results are of them.

    Args:
        *more: Further files that results depend on.

    Returns:
        12 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for folder in (_PACKAGE, config_root()):
        for file in sorted(folder.rglob('*.py')):
            digest.update(f'{file.relative_to(folder)}\0'.encode())
            digest.update(file.read_bytes() + b'\0')
    for file in more:
        digest.update(file.read_bytes() + b'\0')
    return digest.hexdigest()[:12]
