import pytest

from attnpool_backbones import config_files
from attnpool_backbones.config_files import config_root


def test_a_clone_uses_its_own_configs(repo_root):
    assert config_root() == repo_root / 'configs'


def test_an_installed_wheel_uses_the_copy_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / 'package' / 'configs' / '_base_').mkdir(parents=True)
    monkeypatch.setattr(config_files, '_PACKAGE', tmp_path / 'package')
    assert config_root() == tmp_path / 'package' / 'configs'


def test_missing_configs_name_both_places(tmp_path, monkeypatch):
    monkeypatch.setattr(config_files, '_PACKAGE', tmp_path / 'package')
    with pytest.raises(FileNotFoundError) as caught:
        config_root()
    assert str(tmp_path / 'package' / 'configs') in str(caught.value)
    assert str(tmp_path / 'configs') in str(caught.value)
