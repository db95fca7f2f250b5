"""Cost: what went by is in the table, what each cell would have taken alone is in the plots."""

import pytest

from results.formats import SHARED, cost_markdown
from results.index import FILE, write_index
from results.more_figures import cost_plots
from results.record import Cost
from results.report import render
from results.table import build_table
from tests.results.sample import make_record, store


def spent(name, task, seconds, shared=0.0, **more):
    record = make_record(name, task, sha256=name * 64)
    return record.model_copy(update={"cost": Cost(seconds=seconds, shared_seconds=shared, **more)})


def test_a_score_by_time_does_not_depend_on_which_cell_computed_the_features(tmp_path):
    store(tmp_path / "x", spent("a", "knn", 130.0), spent("a", "linear", 40.0, 100.0), spent("b", "knn", 130.0))
    store(tmp_path / "y", spent("a", "knn", 30.0, 100.0), spent("a", "linear", 140.0), spent("b", "knn", 130.0))
    x, y = (build_table([tmp_path / name], pytest.fail) for name in "xy")
    assert cost_plots(x)[0].figure["data"] == cost_plots(y)[0].figure["data"]
    assert [trace["x"] for trace in cost_plots(x)[0].figure["data"]] == [[130.0], [130.0]]
    assert x.total(x.rows[0]) == y.total(y.rows[0]) == 170.0  # what went by is counted once
    assert SHARED in cost_markdown(x)
    store(tmp_path / "z", spent("a", "knn", 30.0))
    assert SHARED not in cost_markdown(build_table([tmp_path / "z"], pytest.fail))


def test_the_report_and_the_index_say_gpu_hours_and_energy(tmp_path):
    pytest.importorskip("plotly")
    store(tmp_path, spent("a", "knn", 1800.0, 12.0, gpus=4, energy_joules=7200.0))
    table = build_table([tmp_path], pytest.fail)
    page = render(table, [], title="x")
    for words in ("2 GPU-hours on 4", "2 Wh", "12.0 s of other cells for features"):
        assert words in page
    write_index(tmp_path, table)
    assert ",1800.0,12.0,2.0,7200.0," in (tmp_path / FILE).read_text()
