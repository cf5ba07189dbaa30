import json
import pkgutil

import pytest

from attnpool_backbones.python_3_14 import give_back_find_loader, gives_back_find_loader


def test_find_loader_is_there_where_python_has_none(monkeypatch):
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    give_back_find_loader()
    assert gives_back_find_loader()
    assert pkgutil.find_loader('json').name == json.__spec__.loader.name
    assert pkgutil.find_loader('no_such_module_anywhere') is None
    with pytest.raises(ImportError, match='no_such_package_anywhere.module'):
        pkgutil.find_loader('no_such_package_anywhere.module')


def test_that_of_python_is_left_alone(monkeypatch):
    monkeypatch.setattr(pkgutil, 'find_loader', len, raising=False)
    give_back_find_loader()
    assert pkgutil.find_loader is len
    assert not gives_back_find_loader()
