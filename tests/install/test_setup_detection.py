import json
from pathlib import Path

import pytest

from mae_bench.setup_detection import Offer
from tests.install.conftest import Environment, make_environment

pytestmark = pytest.mark.slow


def test_the_wheel_is_pinned_by_version_and_hash() -> None:
    assert Offer().requirement == "sal-detectron2==0.7.2"
    assert Offer().sha256 == "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"


def test_install_then_again_then_undo(environment: Environment) -> None:
    before = environment.tree()
    sha256 = environment.wheel("1.0")

    first = environment.call(sha256)
    assert first.returncode == 0, first.stderr
    folder = environment.site / "mae_bench_ext"
    # Compiled operations, the wheel's `tools` and its metadata stay out; its licence is kept.
    assert sorted(p.name for p in folder.iterdir()) == ["LICENSE", "detectron2", "setup.json"]
    assert not list(folder.rglob("_C*"))
    assert json.loads((folder / "setup.json").read_text())["version"] == "1.0"
    installed = environment.tree()

    (environment.wheels / "sal_detectron2-0.7.2-cp310-none-any.whl").unlink()
    second = environment.call(sha256)  # keeps what works, so it needs no wheel
    assert second.returncode == 0, second.stderr
    assert "it is kept" in second.stdout
    assert environment.tree() == installed

    undone = environment.call(undo=True)
    assert undone.returncode == 0, undone.stderr
    assert environment.tree() == before
    assert "nothing to undo" in environment.call(undo=True).stdout


def test_a_package_that_does_not_train_is_not_installed(environment: Environment) -> None:
    before = environment.tree()
    result = environment.call(environment.wheel("broken"))
    assert result.stderr.strip() == (
        "EnvironmentFault: sal-detectron2==0.7.2 does not train here: RuntimeError: the loss is nan; it was not installed"
    )
    assert environment.tree() == before


def test_another_file_than_the_known_one_is_refused(environment: Environment) -> None:
    before = environment.tree()
    environment.wheel("1.0")
    result = environment.call("0" * 64)
    assert result.returncode == 1
    assert "SHA-256 differs" in result.stderr
    assert environment.tree() == before


def test_without_a_network_there_is_one_line(environment: Environment) -> None:
    result = environment.call("0" * 64, index="http://127.0.0.1:9/simple")
    assert result.stderr.startswith("EnvironmentFault: no connection to the package index")
    assert len(result.stderr.splitlines()) == 1


def test_what_a_killed_run_left_is_replaced(environment: Environment) -> None:
    sha256 = environment.wheel("1.0")
    (environment.site / ".mae_bench_ext-dead").mkdir()
    (environment.site / "mae_bench_ext/detectron2").mkdir(parents=True)  # moved into place, and no .pth written any more
    result = environment.call(sha256)
    assert result.returncode == 0, result.stderr
    assert not list(environment.site.glob(".mae_bench_ext-*"))
    assert (environment.site / "mae_bench_ext/detectron2/__init__.py").exists()


def test_ours_that_broke_is_installed_anew(environment: Environment) -> None:
    sha256 = environment.wheel("1.0")
    assert environment.call(sha256).returncode == 0
    package = environment.site / "mae_bench_ext/detectron2/__init__.py"
    package.write_text("import a_module_that_went_away\n")
    result = environment.call(sha256)
    assert result.returncode == 0, result.stderr
    assert package.read_text() == "__version__ = '1.0'\n"


def test_a_working_one_of_the_user_is_kept_and_never_replaced(environment: Environment, tmp_path: Path) -> None:
    environment.foreign("0.6")
    before = environment.tree()
    kept = environment.call("0" * 64)
    assert kept.returncode == 0, kept.stderr
    assert "Detectron2 0.6" in kept.stdout
    assert "nothing to undo" in environment.call(undo=True).stdout
    (tmp_path / "copy/detectron2").mkdir(parents=True)
    refused = environment.call(source=tmp_path / "copy")
    assert "pip uninstall detectron2" in refused.stderr
    assert environment.tree() == before


def test_a_broken_one_of_the_user_is_told(environment: Environment) -> None:
    environment.foreign("broken")
    result = environment.call(environment.wheel("1.0"))
    assert "does not work (RuntimeError: the loss is nan)" in result.stderr
    assert "pip uninstall detectron2" in result.stderr


def test_a_source_is_built_remembered_and_undone(environment: Environment, tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    before = environment.tree()
    source = tmp_path / "source"
    (source / "detectron2").mkdir(parents=True)
    (source / "detectron2/__init__.py").write_text("__version__ = '2.0'\n")
    (source / "setup.py").write_text(
        "from setuptools import setup; setup(name='detectron2', version='2.0', packages=['detectron2'])\n"
    )
    built = environment.call(source=source)
    assert built.returncode == 0, built.stdout + built.stderr
    assert json.loads((environment.site / "mae_bench_ext/setup.json").read_text())["source"] == str(source)
    assert "it is kept" in environment.call(source=source).stdout
    undone = environment.call(undo=True)
    assert undone.returncode == 0, undone.stderr
    assert environment.tree() == before


def test_a_source_that_is_not_there(environment: Environment, tmp_path: Path) -> None:
    result = environment.call(source=tmp_path / "nothing")
    assert result.stderr.startswith("ConfigError: --source")


def test_helpers_that_are_not_installed_are_named(tmp_path: Path) -> None:
    environment = make_environment(tmp_path, without=("fvcore", "iopath"))
    result = environment.call(environment.wheel("1.0"))
    assert result.stderr.strip() == (
        'EnvironmentFault: Detectron2 needs fvcore, iopath; run: pip install "mae-bench[detection]", then this again'
    )
