"""A cell that the system kills is run once more in the same run, and goes on from what it saved."""

import pytest

from mae_bench import runner
from mae_bench.settle import prepare, standing
from tests.runner.light_runner import command, make_cell, run, visits


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.setattr(runner, "python", command)


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", ["", "always"])
def test_r19_a_killed_cell_goes_on_also_where_it_was_begun_anew(tmp_path, overwrite):
    cell = make_cell(tmp_path, mode="kill once")
    code, text = run(tmp_path, cell, overwrite=overwrite)
    assert code == 0 and "it goes on when the others have ended" in text
    assert visits(cell) == 2  # a folder brought to the start once more would have lost the first


def test_what_was_saved_is_thrown_away_at_the_first_start_alone(tmp_path):
    cell = make_cell(tmp_path)
    run(tmp_path, cell)
    saved = cell.folder / "ckpt"
    saved.mkdir()
    stands = standing(cell, "always")
    assert prepare(cell, stands) == "run" and not saved.exists()
    saved.mkdir()
    assert prepare(cell, stands, again=True) == "run" and saved.exists()
