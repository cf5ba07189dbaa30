# Written by `python -m attnpool_backbones.mmcv_operators install`, which `... remove` undoes.
# Answers as mmcv's compiled operators where there are none; a compiled module comes before it.
import sys

try:
    from attnpool_backbones.mmcv_operators import extension
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith('attnpool_backbones'):
        raise
    raise ModuleNotFoundError(
        "No module named 'mmcv._ext': mmcv has no compiled operators here, and those in plain "
        'torch need the package attnpool_backbones, which is not installed. Install it, or build '
        f'mmcv. (This message comes from {__file__}, which may be deleted.)',
        name='mmcv._ext',
    ) from None

sys.modules[__name__] = extension
