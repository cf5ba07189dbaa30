"""One table a family: variants, golden fixtures, sizes."""

import importlib
import pkgutil

TABLES = [
    importlib.import_module(f'{__name__}.{module.name}')
    for module in pkgutil.iter_modules(__path__)
]
VARIANTS = [variant for table in TABLES for variant in table.VARIANTS]
GOLDEN = [golden for table in TABLES for golden in table.GOLDEN]
SIZES = [size for table in TABLES for size in table.SIZES]
FAMILIES = {variant.config['type']: variant for variant in VARIANTS if variant.compiled}
"""One variant of each registered backbone; test_contract.py misses none."""
