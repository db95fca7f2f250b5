"""Layouts: published tables are whole without any run, and what was measured stands in its place, judged and marked."""

import csv
import io
import json
import re

import pytest
from scipy.stats import ttest_ind_from_stats

from mae_bench.core.errors import ConfigError
from results.layout import load, make_sheets, names
from results.rendering import FORMATS, render_sheets
from results.sheet import Place
from results.significance import differ, holm, welch
from results.table import build_table
from tests.results.sample import Screen, make_record, store, store_failed

IMAGENET = {"val": 50_000, "classes": 1000, "dataset": "folder-imagenet"}
PUBLISHED = [name for name in names() if hasattr(load(name), "LAYOUTS")]


def sheets(out, name):
    return make_sheets(name, build_table([out] if out else [], pytest.fail, everything=True))


def text_of(found, form="md"):
    screen = Screen(300, force_terminal=False)
    return render_sheets(found, form, screen) or screen.text


def finetuned(name="MAE", value=83.5, **words):
    return make_record(name, "finetune", "paper", {"top1": value}, **{**IMAGENET, "config": {}, **words})


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", names())
def test_every_layout_is_whole_without_any_run(name, form):
    found = sheets(None, name)
    assert all(sheet.title and re.match(r".{5,}", load(name).__doc__ or "") for sheet in found)
    text = text_of(found, form)
    if name in PUBLISHED:
        assert sum(place.published is not None for sheet in found for place in sheet.places.values()) >= 8
        assert re.search(r"\d\d\.\d", text)


def test_every_number_of_a_table_has_a_place_of_its_own():
    for name in PUBLISHED:
        for sheet in sheets(None, name):
            values = [place.published for place in sheet.places.values()]
            assert len(set(map(id, values))) == len(values)
    assert sum(len(sheet.places) for sheet in sheets(None, "mae-table1")) == 10 + 10 + 4 + 8 + 8 + 8


@pytest.mark.parametrize(
    ("value", "verdict"), [(83.6, "+0.00 agrees"), (83.31, "-0.29 agrees"), (83.2, "-0.40 below"), (84.0, "+0.40 above")]
)
def test_a_measured_number_is_judged_by_the_published_one(tmp_path, value, verdict):
    store(tmp_path, finetuned(value=value))
    [sheet] = sheets(tmp_path, "mae-table3")
    assert sheet.place("MAE", "ViT-B/16").text == f"{value:.2f} [83.6, {verdict}]"
    assert any(note.startswith("agrees: within top1 ±0.3") for note in sheet.notes)
    assert sheet.place("MAE", "ViT-L/16").text == "[85.9]"


def test_a_spread_over_seeds_widens_the_tolerance(tmp_path):
    for seed, value in enumerate((82.6, 83.2, 83.8)):
        store(tmp_path, finetuned(value=value, seed=seed))
    [sheet] = sheets(tmp_path, "mae-table3")
    assert sheet.place("MAE", "ViT-B/16").text == "83.20 ± 0.60 (3) [83.6, -0.40 agrees]"


UNLIKE = [
    ({"changes": {"epochs": 3}, "digest": "d2"}, "changed settings epochs=3"),
    ({"val": 8, "classes": 2, "dataset": "folder-pets"}, r"other data (folder-pets, 8 val images)"),
    ({"ledger": {"missing": 3}}, "weights loaded in part"),
]


@pytest.mark.parametrize(("words", "reason"), UNLIKE, ids=[reason for _, reason in UNLIKE])
def test_an_unlike_protocol_has_a_dagger_and_no_verdict(tmp_path, words, reason):
    store(tmp_path, finetuned(**words))
    [sheet] = sheets(tmp_path, "mae-table3")
    assert sheet.place("MAE", "ViT-B/16").text == "83.50† [83.6]"
    assert any(note.startswith("† MAE, ViT-B/16: not the published protocol") and reason in note for note in sheet.notes)


def test_the_number_of_the_protocol_is_shown_before_others_of_its_place(tmp_path):
    store(tmp_path / "a", finetuned(value=84.0, changes={"epochs": 3}, digest="d2"))
    store(tmp_path / "b", finetuned(value=83.5))
    for outs in (["a", "b"], ["b", "a"]):
        [sheet] = make_sheets("mae-table3", build_table([tmp_path / name for name in outs], pytest.fail, everything=True))
        assert sheet.place("MAE", "ViT-B/16").mean == 83.5
        assert any(note.startswith("1 more number falls") for note in sheet.notes)


def test_other_models_and_sizes_get_rows_and_columns(tmp_path):
    store(tmp_path, finetuned("mine", method="unknown", arch="vit_huge_patch14", config={"image_size": 448}))
    [sheet] = sheets(tmp_path, "mae-table3")
    assert sheet.rows[-1] == "mine" and sheet.place("mine", "ViT-H/14@448").text == "83.50"


def test_settings_find_their_rows_by_name_and_by_protocol(tmp_path):
    words = {**IMAGENET, "arch": "vit_large_patch16", "method": "mae"}
    store(tmp_path, make_record("mask_ratio-75", "linear", "paper", {"top1": 73.4}, **words))
    [sheet] = sheets(tmp_path, "fig5")
    assert sheet.place("mask_ratio=75", "linear probe").text == "73.40 [73.5, -0.10 agrees]"
    for blocks, row in ((0.5, "tuned_blocks=0.5 (MLP of last block)"), (4, "tuned_blocks=4")):
        store(
            tmp_path / "p",
            make_record("MAE", "partial", "paper", {"top1": 80.0}, config={"blocks": blocks}, digest=str(blocks), **words),
        )
        [sheet] = sheets(tmp_path / "p", "fig9")
        assert sheet.place(row, "MAE").mean == 80.0
    store(tmp_path / "b", make_record("MAE", "linear", "paper", {"top1": 68.0}, **{**words, "arch": "vit_base_patch16"}))
    [sheet] = sheets(tmp_path / "b", "fig9")
    assert sheet.place("tuned_blocks=0", "MAE").text == "68.00† [73.5]"
    assert any("ViT-B/16 in place of ViT-L/16" in note for note in sheet.notes)


def test_detection_and_segmentation_have_their_tables(tmp_path):
    coco = {"kind": "detection", "val": 4952, "classes": 80, "dataset": "coco"}
    store(tmp_path, make_record("mae", "detection", "paper", {"AP_box": 51.0, "AP_mask": 45.0}, **coco))
    ade = {"kind": "segmentation", "val": 2000, "classes": 150, "dataset": "ade20k"}
    store(tmp_path, make_record("mae", "segmentation", "paper", {"mIoU": 47.0, "mAcc": 60.0}, **ade))
    [sheet] = sheets(tmp_path, "mae-table4")
    assert sheet.place("MAE", "AP_box ViT-B/16").text == "51.00 [50.3, +0.70 above]"
    [sheet] = sheets(tmp_path, "mae-table5")
    assert sheet.place("MAE", "ViT-B/16").text == "47.00 [48.1, -1.10 below]"


@pytest.mark.parametrize(("gap", "bold"), [(2.0, True), (0.1, False)])
def test_the_best_is_bold_only_where_chance_does_not_explain_it(tmp_path, gap, bold):
    for name, mean in (("a", 50.0), ("b", 50.0 + gap)):
        for seed, noise in enumerate((-0.2, 0.0, 0.2)):
            store(tmp_path, finetuned(name, mean + noise, method="x", seed=seed))
    [sheet] = sheets(tmp_path, "matrix")
    assert [sheet.place(name, sheet.columns[0]).best for name in ("a", "b")] == [False, bold]
    assert ("**" in text_of([sheet])) == bold and (r"\textbf" in text_of([sheet], "latex")) == bold
    assert any("Welch" in note for note in sheet.notes)


def test_single_seeds_are_compared_by_their_sampling_errors(tmp_path):
    store(tmp_path, finetuned("a", 50.0, stderr=0.2), finetuned("b", 51.0, stderr=0.2))
    [sheet] = sheets(tmp_path, "matrix")
    assert sheet.place("b", sheet.columns[0]).best
    store(tmp_path / "none", finetuned("a", 50.0), finetuned("b", 60.0))
    assert not any(place.best for place in sheets(tmp_path / "none", "matrix")[0].places.values())


def test_tests_agree_with_scipy():
    ours = welch((50.0, 0.4, 3), (50.6, 0.2, 5))
    assert ours == pytest.approx(ttest_ind_from_stats(50.0, 0.4, 3, 50.6, 0.2, 5, equal_var=False).pvalue)
    assert welch((50.0, 0.0, 3), (51.0, 0.0, 3)) == 0.0 and welch((50.0, 0.0, 3), (50.0, 0.0, 3)) == 1.0
    test = differ(Place(50.0, stderr=0.5), Place(51.0, stderr=0.5))
    assert test is not None and test.p == pytest.approx(0.1573, abs=1e-4)  # two-sided normal at z = sqrt(2)
    assert differ(Place(50.0), Place(51.0, stderr=0.5)) is None
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_sweep_shows_settings_below_each_other(tmp_path):
    for lr in (0.1, 0.2, 0.4):
        store(tmp_path / str(lr), make_record("a", "linear", "paper", {"top1": 100 * lr}, digest=str(lr), changes={"lr": lr}))
    table = build_table([tmp_path / str(lr) for lr in (0.4, 0.1, 0.2)], pytest.fail)
    [sheet] = make_sheets("sweep", table)
    assert sheet.rows == ("lr=0.1", "lr=0.2", "lr=0.4") and sheet.place("lr=0.2", "a top1").mean == 20.0


def test_h08_failed_and_diverged_cells_are_marked(tmp_path):
    store(tmp_path, finetuned("a"))
    store_failed(tmp_path, finetuned("b"), "boom")
    (store_failed(tmp_path, finetuned("c"), "boom") / "status.json").write_text('{"state": "diverged"}')
    [sheet] = sheets(tmp_path, "matrix")
    assert [sheet.place(name, sheet.columns[0]).text for name in "bc"] == ["failed", "div."]


HOSTILE = (
    r"\input{/etc/passwd}",
    "a_b%$#&{}~^",
    "<script>alert(1)</script>",
    "a|b`c",
    "=cmd|' /C calc'!A0",
    "[x] ]",
    "\x1b[31m",
    "é",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_h01_h04_h05_h06_names_are_text(tmp_path, name):
    store(tmp_path, finetuned(name, method="x"))
    found = sheets(tmp_path, "mae-table3")
    latex = text_of(found, "latex")
    assert r"\input" not in latex and latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    body = latex.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    assert all(line.count(" & ") == len(found[0].columns) for line in body.strip().splitlines())
    assert not re.search(
        r"(?<!\\)[#$%&_](?!\\pm\$|\^|\$)", body.replace(" & ", "").replace(r"$\pm$", "").replace(r"$^\dagger$", "")
    )
    page = text_of(found, "html")
    assert "<script" not in page and "default-src 'none'" in page and "\x1b" not in page
    lines = [line for line in text_of(found).splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(found[0].columns) + 2}
    assert not any(row["row"].startswith(("=", "@", "+", "-")) for row in csv.DictReader(io.StringIO(text_of(found, "csv"))))
    assert any(place["mean"] == 83.5 for place in json.loads(text_of(found, "json"))[0]["places"])
    assert "\x1b" not in text_of(found, "rich")


def test_an_unknown_layout_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown layout 'mae-tabel3'.*mae-table3"):
        make_sheets("mae-tabel3", build_table([], pytest.fail))
