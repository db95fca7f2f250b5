"""Tables: unlike protocols apart, names inert, the same text for the same numbers."""

import csv
import io
import itertools
import json
import random
import time

import pytest
from rich.console import Console

from mae_bench import cli
from mae_bench.core.errors import ConfigError, InputError
from results.formats import cost_markdown, escape_markdown, scores_markdown, to_csv, to_json, to_markdown
from results.labels import record_group
from results.record import FILE
from results.rendering import render
from results.store import Order, write_order
from results.table import Entry, Table, build_table
from tests.results.sample import Screen, make_record, place, store, store_failed


def drawn(table, width=120):
    screen = Screen(width, force_terminal=True, color_system="truecolor")
    render(table, "rich", screen)
    return screen.text


def heads(table):
    return [cell.strip() for cell in scores_markdown(table).splitlines()[2].strip("|").split("|")]


def test_rows_and_columns_in_the_order_given(tmp_path):
    for name in ("zeta", "alpha"):
        store(tmp_path, make_record(name, "knn"), make_record(name, "finetune"), make_record(name, "linear"))
    write_order(tmp_path, Order(("zeta", "alpha"), ("linear:demo", "knn:demo")))
    table = build_table([tmp_path], pytest.fail)
    assert table.row_labels == ("zeta", "alpha")
    assert [group.label for group in table.groups] == ["linear:demo", "knn:demo", "finetune:demo"]


def test_mean_and_spread_over_seeds(tmp_path):
    for seed, value in enumerate((50.0, 52.0, 54.0)):
        store(tmp_path, make_record(metrics={"top1": value}, seed=seed))
    table = build_table([tmp_path], pytest.fail)
    assert "52.00 ± 2.00 (3)" in scores_markdown(table)
    assert "| 3:03 |" in cost_markdown(table)


def test_the_cost_of_a_pretraining_in_the_same_folder_is_counted(tmp_path):
    store(tmp_path, make_record("mae", sha256="1" * 64), make_record("random", sha256="2" * 64))
    assert "pretrain" not in cost_markdown(build_table([tmp_path], pytest.fail))
    folder = tmp_path / "pretrain" / "mae"
    folder.mkdir(parents=True)
    for name in ("metrics.jsonl", "model.safetensors"):
        (folder / name).touch()
    (folder / "pretrain.json").write_text(json.dumps({"sha256": "1" * 64, "seconds": 3700}))
    text = cost_markdown(build_table([tmp_path], pytest.fail))
    assert "| mae | 1:01:40 | 1:01 | 1:02:41 |" in text and "| random | - | 1:01 | 1:01 |" in text


def test_headline_metrics_unless_all_are_asked_for(tmp_path):
    store(tmp_path, make_record(metrics={"top1": 1.0, "top5": 2.0}), make_record(task="odd", metrics={"strange": 3.0}))
    assert heads(build_table([tmp_path], pytest.fail)) == ["model", "knn:demo top1", "odd:demo strange"]
    assert "knn:demo top5" in heads(build_table([tmp_path], pytest.fail, everything=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "d2"},
        {"digest": "d2", "changes": {"k": 3}},
        {"dataset": "folder-b", "fingerprint": "e" * 64},
        {"recipe": "paper"},
    ],
)
def test_unlike_protocols_never_share_a_column(tmp_path, changes):
    store(tmp_path, make_record("a", metrics={"top1": 10.0}), make_record("b", metrics={"top1": 20.0}, **changes))
    table = build_table([tmp_path], pytest.fail)
    assert len(table.groups) == 2
    assert len({group.label for group in table.groups}) == 2
    assert scores_markdown(table).count("| - |") == 2


def test_the_same_label_for_other_data_of_the_same_name(tmp_path):
    store(tmp_path / "x", make_record("a", fingerprint="e" * 64))
    store(tmp_path / "y", make_record("a", fingerprint="f" * 64))
    labels = {group.label for group in build_table([tmp_path / "x", tmp_path / "y"], pytest.fail).groups}
    assert labels == {"knn:demo on folder [eeeeeeee]", "knn:demo on folder [ffffffff]"}


def test_changed_settings_and_mixed_precisions_are_said(tmp_path):
    store(
        tmp_path,
        make_record("a", changes={"k": 3}, digest="d2"),
        make_record("b", changes={"k": 3}, digest="d2", precision="bf16"),
    )
    text = to_markdown(build_table([tmp_path], pytest.fail))
    assert "knn:demo\\*" in text and "k=3" in text and "mixes precisions bf16 and fp32" in text


def test_models_of_one_name_are_told_apart(tmp_path):
    store(tmp_path / "x", make_record("a", sha256="1" * 64))
    store(tmp_path / "y", make_record("a", sha256="2" * 64))
    assert build_table([tmp_path / "x", tmp_path / "y"], pytest.fail).row_labels == ("a [11111111]", "a [22222222]")


def test_t06_the_newest_of_two_measurements_is_shown_and_the_conflict_said(tmp_path):
    store(tmp_path / "x", make_record(metrics={"top1": 10.0}, date="2026-01-02T00:00:00+00:00"))
    store(tmp_path / "y", make_record(metrics={"top1": 20.0}, date="2026-01-01T00:00:00+00:00"))
    table = build_table([tmp_path / "x", tmp_path / "y"], pytest.fail)
    assert "10.00" in scores_markdown(table) and "20.00" not in scores_markdown(table)
    assert any("more than once" in note for note in table.notes)


def test_h08_failed_and_missing_cells_are_marked(tmp_path):
    store(tmp_path, make_record("a"), make_record("a", "linear"))
    store_failed(tmp_path, make_record("b"), "boom")
    store_failed(tmp_path, make_record("b", "only"), "boom")
    text = scores_markdown(build_table([tmp_path], pytest.fail))
    assert "| b | 50.00" not in text and text.count("| failed |") == 2
    assert "only:demo: on folder, no number yet: 1 failed" in text


def test_h08_nothing_at_all(tmp_path):
    table = build_table([tmp_path], pytest.fail)
    assert "no cells yet" in to_markdown(table) and "no cells yet" in drawn(table)
    assert json.loads(to_json(table))["scores"] == []
    with pytest.raises(InputError, match="does not exist"):
        build_table([tmp_path / "absent"], pytest.fail)


def test_t03_broken_records_are_left_out_with_a_warning(tmp_path):
    good, bad = store(tmp_path, make_record("good"), make_record("bad"))
    (bad / FILE).write_text("{")
    lines = []
    table = build_table([tmp_path], lines.append)
    assert len(lines) == 1 and str(bad) in lines[0]
    assert [record.model.name for record in table.records] == ["good"] and good.exists()


def test_scores_do_not_depend_on_dates_cost_or_order_of_files(tmp_path):
    records = [
        make_record(name, task, metrics={"top1": 100 * random.Random(f"{name}{task}{seed}").random()}, seed=seed)
        for name in ("a", "b", "c")
        for task in ("knn", "linear")
        for seed in (0, 1, 2)
    ]
    texts = set()
    for number in range(3):
        out = tmp_path / str(number)
        random.Random(number).shuffle(records)
        for second, record in enumerate(records):
            cost = record.cost.model_copy(update={"seconds": float(number + second)})
            store(out, record.model_copy(update={"date": f"2026-01-0{number + 1}T00:00:{second:02}+00:00", "cost": cost}))
        texts.add(scores_markdown(build_table([out], pytest.fail)))
    assert len(texts) == 1


HOSTILE = ("x[/nope]", "[red]x", "a|b", "`x`", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "\x1b[31mred", "@sum", "$a$")


@pytest.mark.parametrize("name", HOSTILE)
def test_h03_h05_h06_names_are_text(tmp_path, name):
    store(tmp_path, make_record(name))
    table = build_table([tmp_path], pytest.fail)
    screen = drawn(table)
    assert "50.00" in screen and "\x1b[31mred" not in screen
    for line in scores_markdown(table).splitlines()[2:5]:
        assert line.replace("\\|", "").count("|") == 3
    assert "<script>" not in to_markdown(table)
    row = next(iter(csv.DictReader(io.StringIO(to_csv(table)))))
    assert not row["model"].startswith(("=", "@", "+", "-"))
    assert json.loads(to_json(table))["scores"][0]["mean"] == 50.0


def test_markdown_escape():
    assert escape_markdown("a|b*c_d`e[f](g)<h>&") == "a\\|b\\*c\\_d\\`e\\[f\\](g)&lt;h&gt;&amp;"


def test_an_unknown_format_is_named(tmp_path):
    store(tmp_path, make_record())
    with pytest.raises(ConfigError, match=r"doc.*known: csv, html, json, latex, md, rich"):
        render(build_table([tmp_path], pytest.fail), "doc", Console())


@pytest.mark.slow
def test_t07_ten_thousand_cells_in_seconds(tmp_path):
    for model, task, seed in itertools.product(range(100), range(20), range(5)):
        record = make_record(f"m{model}", f"t{task}", seed=seed)
        folder = place(tmp_path, record)
        folder.mkdir(parents=True)
        (folder / FILE).write_text(json.dumps(record.model_dump(mode="json", by_alias=True)))
    started = time.process_time()  # other programs on the machine do not count
    to_markdown(build_table([tmp_path], pytest.fail))
    assert time.process_time() - started < 5


def test_t07_the_time_of_a_table_grows_with_its_places_not_with_their_square(tmp_path):
    def seconds(count):
        groups = [make_record("m", f"t{number}", digest=str(number)) for number in range(count)]
        keys = [record_group(record) for record in groups]
        rows = [(f"m{number}", "x") for number in range(count)]
        scores = {(rows[number], keys[number], "top1"): Entry(1.0, None, 1) for number in range(count)}
        times = {(rows[number], keys[number]): 1.0 for number in range(count)}
        labels = tuple(name for name, _ in rows)
        table = Table(tuple(rows), labels, (), scores, times, {}, {})
        started = time.process_time()
        for row in rows:
            table.total(row)
            for key in keys:
                table.score(row, key, "top1")
        return time.process_time() - started

    assert seconds(200) < 30 * max(seconds(50), 1e-3)  # 16 times as many places; it was 64 times the time


def test_h08_a_folder_without_cells_is_refused_and_not_an_empty_table(tmp_path, capsys):
    for words in ([], ["--layout", "mae-table3"], ["--format", "csv"]):
        assert cli.main(["table", str(tmp_path), *words]) == 3
        assert "holds no cells of a run" in capsys.readouterr().err
    store(tmp_path, make_record())
    assert cli.main(["table", str(tmp_path)]) == 0
    for words in (["--layout", "classes"], ["--layout", "matrix"], [str(tmp_path), "--layout", "classes"]):
        assert cli.main(["table", *words]) == 3
        assert "shows measured numbers alone" in capsys.readouterr().err
