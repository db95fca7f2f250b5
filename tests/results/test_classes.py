"""Numbers of single classes: in the record, in a layout, in the report."""

from pathlib import Path

import pytest

from results.layout import make_sheets
from results.record import ClassScores, read_record
from results.rendering import render_sheets
from results.report import render
from results.table import build_table
from tests.results.sample import Screen, make_record, store


def scored(values, **facts):
    """A record of detection with the AP of classes."""
    record = make_record(task="detection", metrics={"AP_box": 20.0, "AP_mask": 18.0}, dataset="coco", **facts)
    classes = tuple(ClassScores(name=name, values={"AP_box": box, "AP_mask": mask}) for name, box, mask in values)
    return record.model_copy(update={"classes": classes})


@pytest.fixture
def out(tmp_path) -> Path:
    store(
        tmp_path,
        scored([("cat", 10.0, 8.0), ("<b>dog", 30.0, None), ("cat", 1.0, 2.0)]),
        scored([("cat", 14.0, 8.0), ("<b>dog", 20.0, None), ("cat", 3.0, 2.0)], seed=1),
        scored([("cat", 40.0, 4.0), ("<b>dog", 50.0, 5.0), ("cat", 6.0, 7.0)], name="random", sha256="cd" * 32),
        make_record(),  # of a task that has none
    )
    return tmp_path


def test_a_record_keeps_the_classes_in_order(out):
    (path,) = out.glob("random/*/*/*/record.json")
    found = read_record(path, pytest.fail)
    assert found is not None and [one.name for one in found.classes] == ["cat", "<b>dog", "cat"]
    assert found.classes[1].values == {"AP_box": 50.0, "AP_mask": 5.0}


def test_the_layout_has_a_row_for_each_class_and_means_over_seeds(out):
    (sheet,) = make_sheets("classes", build_table([out], pytest.fail, everything=True))
    assert sheet.rows == ("cat", "<b>dog", "cat (2)")
    assert sheet.columns == ("mae AP_box", "mae AP_mask", "random AP_box", "random AP_mask")
    assert (sheet.place("cat", "mae AP_box").mean, sheet.place("cat", "mae AP_box").seeds) == (12.0, 2)
    assert sheet.place("cat", "mae AP_box").std == pytest.approx(8**0.5)
    assert sheet.place("<b>dog", "mae AP_mask").text == "-" and sheet.place("cat (2)", "random AP_mask").mean == 7.0
    screen = Screen()
    render_sheets([sheet], "rich", screen)
    assert "12.00 ± 2.83 (2)" in screen.text and "cat (2)" in screen.text


def test_without_classes_there_is_no_sheet(tmp_path):
    store(tmp_path, make_record())
    assert make_sheets("classes", build_table([tmp_path], pytest.fail, everything=True)) == []


def test_the_report_shows_them_escaped(out, monkeypatch):
    table = build_table([out], pytest.fail)
    page = render(table, (), title="x")
    assert page.count("<summary>3 classes</summary>") == 3 and "&lt;b&gt;dog" in page and "<b>dog" not in page
    monkeypatch.setattr("results.report.MOST_CLASSES", 6)
    assert render(table, (), title="x").count("<summary>3 classes</summary>") == 2
