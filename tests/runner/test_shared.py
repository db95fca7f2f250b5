"""Features that cells of a run share are paid for by each that uses them."""

import json

import pytest

from mae_bench.cell import main
from results.names import FEATURES
from results.record import read_record
from results.request import write_request
from tests.runner.test_plan import plan


def test_the_second_cell_that_uses_features_says_what_they_cost_the_first(tmp_path, images):
    overrides = {"knn.k": "1", "knn.also_k": "[]"}
    cells = plan(tmp_path, images, tasks=("knn:demo", "logistic:demo"), overrides=overrides, room="tasks.suite").cells
    for one in cells:
        write_request(one.folder, one.request)
        assert main([str(one.folder)]) == 0
    records = [read_record(one.folder / "record.json", pytest.fail) for one in cells]
    told = [json.loads((one.folder / FEATURES).read_text()) for one in cells]
    spent = sum(line["seconds"] for line in told[0].values())
    assert [[line["found"] for line in one.values()] for one in told] == [[False, False], [True, True]]
    shared = [record.cost.shared_seconds for record in records if record is not None]
    assert shared[0] == 0.0 and shared[1] == pytest.approx(spent, rel=0.2, abs=0.05)
