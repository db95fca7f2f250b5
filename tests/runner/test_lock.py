"""A folder is one process's alone, for as long as that lives."""

import subprocess
import sys

import pytest

from mae_bench.claim import Busy
from mae_bench.locks import LOCK, holder, is_locked, locked
from tests.runner.conftest import held


def test_t02_a_folder_is_held_by_one_process(tmp_path):
    with held(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(Busy), locked(tmp_path):
            pass
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_r20_the_lock_of_a_machine_that_is_gone_holds_nothing(tmp_path):
    with held(tmp_path):
        pass  # the holder was killed, as by a loss of power
    assert (tmp_path / LOCK).exists() and not is_locked(tmp_path)
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_who_holds_a_folder_can_look_at_it_and_still_holds_it(tmp_path):
    """The kernel drops a process's lock of a file when that process closes the file, however often it has opened it."""
    script = f"from pathlib import Path; from mae_bench.locks import _take; print(_take(Path({str(tmp_path)!r}))[1])"

    def elsewhere():
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60).stdout

    (tmp_path / "other").symlink_to(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path) and holder(tmp_path / "other")
        for path in (tmp_path, tmp_path / "other"):
            with pytest.raises(Busy), locked(path):
                pass
        assert elsewhere() == "other\n"
    assert not is_locked(tmp_path) and elsewhere() == "mine\n"
