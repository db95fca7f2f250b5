"""Features are computed once, shared by the probes, and never those of another checkpoint."""

import errno
import json
import multiprocessing
import time

import pytest
import torch

from backbones.source import open_source
from mae_bench.core.run import Run
from results.names import FEATURES
from tasks.common import bank
from tasks.common.bank import banks, held_out
from tasks.common.settings import Pooled
from tasks.handle import open_data
from tasks.suite import knn, linear, logistic

pytestmark = pytest.mark.slow

MEAN = Pooled(pool="mean")


@pytest.fixture(scope="module")
def source():
    return open_source("random:vit_demo_patch8")


@pytest.fixture
def extractions(monkeypatch):
    """Titles of the extractions that are made."""
    made, whole = [], bank.extract

    def note(*words, **more):
        made.append(more["title"])
        return whole(*words, **more)

    monkeypatch.setattr(bank, "extract", note)
    return made


def test_probes_of_one_output_folder_share_features(source, colours, tmp_path, extractions):
    data, cache = open_data(f"folder={colours}"), tmp_path / "cache"
    for task, config in (
        (knn, knn.Config(k=3, pool="mean")),
        (linear, linear.Config(cached=True, pool="mean", epochs=2, warmup_epochs=0)),
        (logistic, logistic.RECIPES["demo"].override({"crop_ratio": 0.875})),
    ):
        task.evaluate(source, data, config, Run(tmp_path / task.__name__, cache=cache))
    assert extractions == ["features of train", "features of val"]


def test_features_from_a_file_are_the_same(source, colours, tmp_path, extractions):
    data = open_data(f"folder={colours}")
    found = [banks(source, data, MEAN, Run(tmp_path, cache=tmp_path / "cache")) for _ in range(2)]
    fresh = banks(source, data, MEAN, Run(tmp_path))
    assert len(extractions) == 4
    for one, other, third in zip(*found, fresh, strict=True):
        assert torch.equal(one.features, other.features) and torch.equal(one.classes, other.classes)
        assert torch.equal(one.features, third.features)


def test_other_seeds_views_and_poolings_have_features_of_their_own(source, colours, tmp_path, extractions):
    """A random network has one digest for all seeds, so that the file is not told by it."""
    data, cache = open_data(f"folder={colours}"), tmp_path / "cache"
    first, _ = banks(source, data, MEAN, Run(tmp_path, cache=cache))
    others = [
        (MEAN, Run(tmp_path, seed=1, cache=cache)),
        (Pooled(pool="cls"), Run(tmp_path, cache=cache)),
        (Pooled(pool="mean", image_size=56), Run(tmp_path, cache=cache)),
        (Pooled(pool="mean", crop_ratio=1.0), Run(tmp_path, cache=cache)),
        (MEAN, Run(tmp_path, precision="bf16", cache=cache)),
    ]
    for config, run in others:
        found, _ = banks(source, data, config, run)
        assert not torch.equal(found.features, first.features)
    assert len(extractions) == 12


def told(folder):
    return [(line["found"], line["seconds"] > 0) for line in json.loads((folder / FEATURES).read_text()).values()]


def test_who_computes_features_and_who_finds_them_ready_is_said(source, colours, tmp_path):
    data = open_data(f"folder={colours}")
    for name in ("first", "second", "first"):  # the first one again, as after an interruption: it has paid for them
        banks(source, data, MEAN, Run(tmp_path / name, cache=tmp_path / "cache"))
    assert told(tmp_path / "first") == [(False, True)] * 2 and told(tmp_path / "second") == [(True, True)] * 2
    seconds = [
        [line["seconds"] for line in json.loads((tmp_path / name / FEATURES).read_text()).values()]
        for name in ("first", "second")
    ]
    assert seconds[0] == seconds[1]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ESTALE])
def test_t05_without_locks_features_are_computed_all_the_same(source, colours, tmp_path, monkeypatch, number):
    def refuse(*words):
        raise OSError(number, "no locks")

    monkeypatch.setattr(bank.fcntl, "lockf", refuse)
    data = open_data(f"folder={colours}")
    found = [banks(source, data, MEAN, Run(tmp_path, cache=tmp_path / "cache"))[0] for _ in range(2)]
    assert torch.equal(found[0].features, found[1].features)


def test_a_damaged_file_is_computed_again(source, colours, tmp_path, extractions, caplog):
    data, run = open_data(f"folder={colours}"), Run(tmp_path, cache=tmp_path / "cache")
    first, _ = banks(source, data, MEAN, run)
    for path in (tmp_path / "cache").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    again, _ = banks(source, data, MEAN, run)
    assert torch.equal(first.features, again.features)
    assert len(extractions) == 4 and "computing them again" in caplog.text


def test_images_left_out_are_told_by_every_cell(source, own_colours, tmp_path, extractions):
    root = own_colours(4)
    (root / "train/green/1.png").write_bytes(b"<html>")
    data = open_data(f"folder={root}")
    for name in "ab":
        train, val = banks(source, data, MEAN, Run(tmp_path / name, cache=tmp_path / "cache"))
        assert (len(train.features), len(train.classes), len(val.features)) == (11, 11, 12)
        (line,) = [json.loads(text) for text in (tmp_path / name / "skipped.jsonl").read_text().splitlines()]
        assert line["index"] == 5 and "green/1.png" in line["reason"]
    assert len(extractions) == 2


def _hold(path, seconds):
    with bank._locked(path, Run(path.parent)):
        (path.parent / "held").touch()
        time.sleep(seconds)


def test_two_cells_do_not_compute_the_same_at_once(tmp_path):
    path = tmp_path / "x.lock"
    other = multiprocessing.get_context("fork").Process(target=_hold, args=(path, 0.5))
    other.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    started = time.monotonic()
    with bank._locked(path, Run(tmp_path)):
        waited = time.monotonic() - started
    other.join()
    assert waited > 0.2


def test_the_part_held_out_has_every_class_and_leaves_some_of_each():
    classes = torch.tensor([0] * 50 + [1] * 20 + [2] * 2 + [3])
    chosen = held_out(classes, 0.1, seed=0)
    assert [int(chosen[classes == label].sum()) for label in range(4)] == [5, 2, 1, 0]
    assert torch.equal(chosen, held_out(classes, 0.1, seed=0))
    assert not torch.equal(chosen, held_out(classes, 0.1, seed=1))
