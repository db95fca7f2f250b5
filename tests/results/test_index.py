"""The index: made of the records, read by nothing, the same in every format."""

import csv
import io

import pandas as pd
import pytest

from results.formats import to_markdown
from results.index import FILE, PARQUET, write_index
from results.table import build_table
from tests.results.sample import make_record, store


def test_t04_the_index_is_made_of_the_records_and_read_by_nothing(tmp_path):
    store(tmp_path, make_record("=a", metrics={"top1": 50.0, "top5": 75.0}), make_record("b", seed=1))
    table = build_table([tmp_path], pytest.fail)
    path, *_ = write_index(tmp_path, table)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [(row["model"], row["seed"], row["metric"], row["value"]) for row in rows] == [
        ("'=a", "0", "top1", "50.0"),
        ("'=a", "0", "top5", "75.0"),
        ("b", "1", "top1", "50.0"),
    ]
    before = to_markdown(table)
    for spoil in (lambda: path.write_bytes(b"\xff\x00"), path.unlink, lambda: path.mkdir()):
        spoil()
        assert to_markdown(build_table([tmp_path], pytest.fail)) == before
    path.rmdir()
    assert write_index(tmp_path, build_table([tmp_path], pytest.fail))[0].stat().st_size > 100


def test_t04_parquet_holds_what_csv_does_with_its_types(tmp_path):
    pytest.importorskip("pyarrow")
    store(tmp_path, make_record("=a", metrics={"top1": 50.5, "top5": 75.0}, stderr=0.25), make_record("b", seed=1))
    paths = write_index(tmp_path, build_table([tmp_path], pytest.fail))
    assert [path.name for path in paths] == [FILE, PARQUET]
    found, lines = pd.read_parquet(tmp_path / PARQUET), pd.read_csv(tmp_path / FILE)
    assert list(found.columns) == list(lines.columns) and len(found) == len(lines) == 3
    assert found["model"].tolist() == ["=a", "=a", "b"]  # a formula is nothing to a file that no spreadsheet opens
    assert found["value"].tolist() == [50.5, 75.0, 50.0]
    assert found["seed"].dtype == "int64" and found["seconds"].dtype == "float64"
    (tmp_path / PARQUET).unlink()
    assert len(build_table([tmp_path], pytest.fail).records) == 2


def test_an_index_of_nothing(tmp_path):
    assert all(path.exists() for path in write_index(tmp_path, build_table([tmp_path], pytest.fail)))


def test_u11_without_pyarrow_no_old_index_stays(tmp_path, monkeypatch):
    (tmp_path / PARQUET).write_bytes(b"of an earlier run")
    monkeypatch.setattr("results.index.find_spec", lambda name: None)
    assert write_index(tmp_path, build_table([tmp_path], pytest.fail)) == (tmp_path / FILE,)
    assert not (tmp_path / PARQUET).exists()
