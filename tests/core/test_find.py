"""A folder listing is the registry, and the three ways of not finding something are told apart."""

import sys

import pytest

from mae_bench.core import find
from mae_bench.core.errors import ConfigError, EnvironmentFault


@pytest.fixture
def room(tmp_path, monkeypatch):
    package = tmp_path / "room_of_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "good.py").write_text("VALUE = 7\n")
    (package / "needs.py").write_text("import no_such_package_anywhere\n")
    (package / "broken.py").write_text("import mae_bench.no_such_file\n")
    (package / "_private.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package.name
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def test_a_new_file_is_a_new_name(room, tmp_path):
    assert find.names(room) == ["broken", "good", "needs"]
    (tmp_path / room / "another.py").write_text("")
    assert "another" in find.names(room)
    assert room not in sys.modules or f"{room}.good" not in sys.modules


def test_load(room):
    assert find.load(room, "good", what="thing").VALUE == 7


def test_unknown_name_lists_the_nearest(room):
    with pytest.raises(ConfigError, match="unknown thing 'god'; did you mean good"):
        find.load(room, "god", what="thing")


def test_U11_missing_package_names_its_install_line(room):
    with pytest.raises(EnvironmentFault, match=r"thing needs needs no_such_package_anywhere.*pip install"):
        find.load(room, "needs", what="thing")


def test_a_fault_of_our_own_flies(room):
    with pytest.raises(ModuleNotFoundError, match="no_such_file"):
        find.load(room, "broken", what="thing")
