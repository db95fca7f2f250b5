"""A folder is one process's alone, for as long as that lives."""

import pytest

from mae_bench.job import LOCK, Busy, is_locked, locked
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
