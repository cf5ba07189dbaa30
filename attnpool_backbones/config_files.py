"""Where the configs of this package are, in a clone and in an installed wheel."""

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
