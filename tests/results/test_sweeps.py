"""Columns of a sweep are named after the settings that vary; cells without a number are said in every layout."""

import hashlib

import pytest

from results.layout import make_sheets
from results.record import FILE
from results.request import MOST_SHOWN, write_request
from results.table import build_table
from tests.results.sample import make_record, make_request, place, store, store_failed


def swept(out, name, failed=False, **changes):
    """A cell of a sweep in a folder of its own, as a grid leaves it."""
    digest = hashlib.sha256(str(sorted(changes.items())).encode()).hexdigest()
    record = make_record(name, "linear", "paper", digest=digest, changes=changes, config={"lr": 0.5, **changes})
    folder = out / digest
    return store_failed(folder, record, "boom") if failed else store(folder, record)[0]


def table_of(out):
    return build_table(sorted(out.iterdir()), pytest.fail)


def test_headings_say_which_settings_vary(tmp_path):
    for lr in (0.1, 0.2):
        swept(tmp_path, "a", lr=lr, epochs=9)
    swept(tmp_path, "a")
    labels = {group.label for group in table_of(tmp_path).groups}
    assert labels == {"linear:paper", "linear:paper* [lr=0.1, epochs=9]", "linear:paper* [lr=0.2, epochs=9]"}
    (sheet,) = make_sheets("matrix", table_of(tmp_path))
    assert any("lr=0.1" in column for column in sheet.columns)


def test_settings_that_all_have_are_in_no_heading(tmp_path):
    for lr in (0.1, 0.2):
        swept(tmp_path, "a", lr=lr, epochs=9)
    assert {group.label for group in table_of(tmp_path).groups} == {"linear:paper* [lr=0.1]", "linear:paper* [lr=0.2]"}


def test_long_settings_and_equal_ones_are_told_apart_by_their_digest(tmp_path):
    for number in (1, 2):
        swept(tmp_path, "a", schedule=f"{number}{'x' * MOST_SHOWN}")
    labels = {group.label for group in table_of(tmp_path).groups}
    assert len(labels) == 2 and not any("xxx" in label for label in labels)
    for digest in ("d1", "d2"):
        store(tmp_path / "same" / digest, make_record("a", "knn", digest=digest, changes={"k": 3}))
    assert {group.label for group in table_of(tmp_path / "same").groups} == {"knn:demo* [d1]", "knn:demo* [d2]"}


def test_h08_a_column_of_failures_says_so_and_which_settings_they_had(tmp_path):
    swept(tmp_path, "a", lr=0.1)
    swept(tmp_path, "a", failed=True, lr=9.0)
    table = table_of(tmp_path)
    notes = {group.label: group.note for group in table.groups}
    assert notes["linear:paper* [lr=9.0]"] == "on folder, no number yet: 1 failed; other settings than paper: lr=9.0"
    (sheet,) = make_sheets("sweep", table)
    assert sheet.place("lr=9.0", "a top1").text == "failed" and sheet.place("lr=0.1", "a top1").mean == 50.0


def test_h08_a_sweep_of_failures_only_is_shown(tmp_path):
    swept(tmp_path, "a", failed=True, lr=9.0)
    swept(tmp_path, "a", failed=True, lr=8.0)
    (sheet,) = make_sheets("sweep", table_of(tmp_path))
    assert {sheet.place(row, "a").text for row in sheet.rows} == {"failed"} and len(sheet.rows) == 2


def test_a_cell_that_is_only_planned_is_no_failure(tmp_path):
    record = make_record("a", "linear")
    write_request(place(tmp_path, record), make_request(record))
    (group,) = build_table([tmp_path], pytest.fail).groups
    assert group.note == "on folder, no number yet" and not (place(tmp_path, record) / FILE).exists()
