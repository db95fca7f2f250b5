"""The Makefile's `env`, with a `python` that only writes down what it is asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
# Stands for python, and for the programs of the environment it makes.
echo "$(basename "$0") $*" >> "$LOG"
case "$1 $2" in
"-m venv") mkdir -p "$3/bin"; touch "$3/pyvenv.cfg"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/mae-bench" ;;
"-m pip") [ -z "$CUT" ] || kill -9 $PPID ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Workshop:
    """A copy of the files that `make env` looks at."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.python = root, root / "log", root / "stub/python"
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, root / name)
        self.python.parent.mkdir()
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def make(self, *words: str, cut: bool = False, python: str = "") -> tuple[int, list[str], str]:
        """Run make; gives its exit code, what python was asked for (`-c` checks aside) and standard error."""
        self.log.write_text("")
        environment = os.environ | {"LOG": str(self.log), "CUT": "1" if cut else ""}
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV"):
            environment.pop(name, None)
        command = ["make", *words, f"PYTHON={python or self.python}"]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=60, check=False)
        asked = [line for line in self.log.read_text().splitlines() if not line.startswith("python -c")]
        return done.returncode, asked, done.stderr


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


FULL = ["python -m venv .venv", "python -m pip install -c constraints.txt -e .[all,dev]", "mae-bench setup detection"]


def test_env_is_made_once_and_again_when_its_inputs_change(workshop: Workshop) -> None:
    assert workshop.make("env")[:2] == (0, FULL)
    assert workshop.make("env")[:2] == (0, [])
    later = (workshop.root / ".venv/.mae-bench-ready").stat().st_mtime + 10
    os.utime(workshop.root / "constraints.txt", (later, later))
    assert workshop.make("env")[1] == FULL[1:]


def test_an_install_that_was_cut_off_starts_over(workshop: Workshop) -> None:
    assert workshop.make("env", cut=True)[0] != 0
    (workshop.root / ".venv/half").touch()
    assert workshop.make("env")[:2] == (0, FULL)
    assert not (workshop.root / ".venv/half").exists()
    assert workshop.make("env")[:2] == (0, [])


def test_an_environment_of_the_user_is_not_deleted(workshop: Workshop) -> None:
    subprocess.run(
        [workshop.python, "-m", "venv", workshop.root / "mine"], env=os.environ | {"LOG": str(workshop.log)}, check=True
    )
    (workshop.root / "mine/theirs").touch()
    assert workshop.make("env", "VENV=mine", cut=True)[0] != 0
    code, asked, _ = workshop.make("env", "VENV=mine")
    assert (code, asked) == (0, FULL[1:])
    assert (workshop.root / "mine/theirs").exists()


def test_a_folder_that_is_no_environment_is_refused(workshop: Workshop) -> None:
    (workshop.root / "papers").mkdir()
    (workshop.root / "papers/thesis.tex").touch()
    code, asked, error = workshop.make("env", "VENV=papers")
    assert code != 0
    assert asked == []
    assert error.startswith("error: papers exists and is no Python environment")


@pytest.mark.parametrize(("stub", "message"), [("false", "older than 3.11"), ("no-such-python", "older than 3.11")])
def test_an_old_python_is_told_in_one_line(workshop: Workshop, stub: str, message: str) -> None:
    code, asked, error = workshop.make("env", python=stub)
    assert code != 0
    assert asked == []
    assert message in error.splitlines()[0]


def test_a_python_without_venv_is_told(workshop: Workshop) -> None:
    workshop.python.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\n')
    _, _, error = workshop.make("env")
    assert "has no venv module" in error.splitlines()[0]


def test_help_is_the_default(workshop: Workshop) -> None:
    done = subprocess.run(["make"], cwd=workshop.root, capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make")] == [
        "help",
        "env",
        "demo",
        "test",
        "check",
        "docs",
        "clean",
    ]
