"""Comparing two models: paired where it can be, the numbers of scipy, and never a claim without a test."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest, ttest_rel

from mae_bench.core.errors import ConfigError, InputError
from results.compare import PER_IMAGE, compare
from results.compare_formats import render
from results.table import build_table
from tests.results.sample import Screen, make_record, store


def comparing(*outs):
    return compare(build_table(outs, pytest.fail), "a", "b")


def test_seeds_are_paired_as_scipy_pairs_them(tmp_path):
    one, other = [50.0, 52.0, 55.0, 49.0], [50.4, 52.5, 55.3, 49.6]
    for seed, values in enumerate(zip(one, other, strict=True)):
        store(
            tmp_path, *(make_record(name, metrics={"top1": value}, seed=seed) for name, value in zip("ab", values, strict=True))
        )
    store(tmp_path, make_record("a", metrics={"top1": 99.0}, seed=9))  # without a partner
    [found] = comparing(tmp_path)
    test = ttest_rel(other, one)
    low, high = test.confidence_interval()
    assert (found.difference, found.p) == (pytest.approx(0.45), pytest.approx(test.pvalue))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.seeds, found.better, found.first) == (4, "b", pytest.approx(51.5))


def test_holm_corrects_for_the_number_of_tests(tmp_path):
    for number in range(5):
        for seed, noise in enumerate((-0.1, 0.0, 0.13)):
            metrics = {"top1": 50 + noise + (0.45 if number == 0 else 0.01)}
            store(tmp_path, make_record("a", f"t{number}", seed=seed), make_record("b", f"t{number}", metrics=metrics, seed=seed))
    found = comparing(tmp_path)
    assert len(found) == 5 and found[0].p is not None and found[0].p < 0.05
    assert found[0].p_holm == pytest.approx(5 * found[0].p) and found[0].better == ""


def test_images_decide_where_they_are_stored(tmp_path):
    draws = np.random.default_rng(1)
    one = draws.integers(0, 2, 200)
    other = np.where(draws.random(200) < 0.15, 1, one)
    for name, values in (("a", one), ("b", other)):
        [folder] = store(tmp_path, make_record(name, metrics={"top1": 100 * float(values.mean())}))
        (folder / PER_IMAGE).write_text(json.dumps({"top1": values.tolist()}))
    [found] = comparing(tmp_path)
    gaps = other - one
    assert found.test.startswith("McNemar")
    assert found.p == pytest.approx(binomtest(int((gaps > 0).sum()), int((gaps != 0).sum())).pvalue)
    error = 100 * gaps.std() / np.sqrt(200)
    assert found.low == pytest.approx(found.difference - 1.96 * error, abs=0.6)
    assert found.high == pytest.approx(found.difference + 1.96 * error, abs=0.6)


def test_values_of_images_that_are_no_right_or_wrong_are_resampled(tmp_path):
    draws = np.random.default_rng(1)
    one = draws.random(50)
    for name, values in (("a", one), ("b", one + 0.1 + 0.01 * draws.random(50))):
        [folder] = store(tmp_path, make_record(name, metrics={"mIoU": 100 * float(values.mean())}))
        (folder / PER_IMAGE).write_text(json.dumps({"mIoU": values.tolist()}))
    [found] = comparing(tmp_path)
    assert found.test == "paired bootstrap of images" and found.p is not None and found.p < 0.001 and found.better == "b"
    assert found.low is not None and found.low > 10


@pytest.mark.parametrize("text", ["{", '{"top1": [1]}', '{"top1": [1, "x", 0]}', '{"top1": [1, 0, 1, NaN]}'])
def test_broken_values_of_images_are_not_used(tmp_path, text):
    folders = store(tmp_path, make_record("a"), make_record("b"))
    (folders[0] / PER_IMAGE).write_text(text)
    (folders[1] / PER_IMAGE).write_text('{"top1": [1, 0, 1]}')
    assert comparing(tmp_path)[0].test.startswith("none")


def test_one_seed_without_a_sampling_error_claims_nothing(tmp_path):
    store(tmp_path, make_record("a"), make_record("b", metrics={"top1": 90.0}))
    [found] = comparing(tmp_path)
    assert (found.p, found.better, found.difference) == (None, "", 40.0)
    store(tmp_path / "x", make_record("a", stderr=1.0), make_record("b", metrics={"top1": 90.0}, stderr=1.0))
    assert comparing(tmp_path / "x")[0].better == "b"


def test_unlike_protocols_are_not_compared(tmp_path):
    store(tmp_path, make_record("a"), make_record("b", digest="d2"))
    with pytest.raises(InputError, match="no finished cell in common"):
        comparing(tmp_path)


def test_names(tmp_path):
    store(tmp_path / "x", make_record("a", sha256="1" * 64), make_record("mine"))
    store(tmp_path / "y", make_record("a", sha256="2" * 64))
    table = build_table([tmp_path / "x", tmp_path / "y"], pytest.fail)
    with pytest.raises(ConfigError, match=r"no model 'mime' was measured; did you mean mine"):
        compare(table, "mime", "a")
    with pytest.raises(ConfigError, match=r"2 checkpoints are called 'a'; say which: a \[11111111\] or a \[22222222\]"):
        compare(table, "mine", "a")
    with pytest.raises(ConfigError, match="with itself"):
        compare(table, "mine", "mine")


def test_formats(tmp_path):
    store(tmp_path, make_record("a"), make_record("b", metrics={"top1": 60.0}))
    found = comparing(tmp_path)
    assert "| knn:demo | top1 | 50.00 | 60.00 | +10.00 |" in (render(found, "a", "b", "md", Console()) or "")
    assert json.loads(render(found, "a", "b", "json", Console()) or "")["comparisons"][0]["difference"] == 10.0
    assert next(csv.DictReader(io.StringIO(render(found, "a", "b", "csv", Console()) or "")))["second"] == "60.0"
    screen = Screen()
    assert render(found, "[red]x", "b", "rich", screen) is None and "[red]x" in screen.text
    with pytest.raises(ConfigError, match="unknown format"):
        render(found, "a", "b", "doc", Console())


def test_a_narrow_screen_loses_no_column(tmp_path):
    """A pipe is 80 columns wide for rich, and the corrected p and the verdict are what is asked for."""
    store(tmp_path, make_record("a"), make_record("b", metrics={"top1": 60.0}))
    screen = Screen(width=80)
    render(comparing(tmp_path), "a", "b", "rich", screen)
    assert all(word in screen.text for word in ("metric", "p (Holm)", "better", "test", "seeds", "one seed"))
