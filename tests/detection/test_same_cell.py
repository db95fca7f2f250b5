"""Settings that change no number: a record stands with others, and a training that was stopped goes on."""

import json
import time
from dataclasses import replace

import pytest

from mae_bench.core.errors import Stopped
from mae_bench.core.run import Run
from mae_bench.options import Options
from mae_bench.plan import make_plan
from mae_bench.settle import announce, prepare, standing
from results.request import read_request
from tasks.handle import open_data
from tasks.suite import detection

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]

OTHER = {"checkpointing": True, "eval_batch_size": 3, "evaluator": "fast"}


def test_they_are_no_part_of_the_digest(settings, tmp_path):
    changed = [settings.override({name: value}) for name, value in OTHER.items()]
    assert set(OTHER) == set(detection.Config.changing_nothing) and settings not in changed
    assert {one.digest() for one in changed} == {settings.digest()}
    (tmp_path / "x.pth").write_bytes(b"x")
    begun = {"weights": str(tmp_path / "x.pth")}
    assert settings.override({**OTHER, **begun}).digest() == settings.override(begun).digest() != settings.digest()


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"batch_size": 4}, {"head.score_threshold": 0.1}, {"flip": 0.0}])
def test_all_else_is(settings, change):
    assert settings.override(change).digest() != settings.digest()


def test_a_stopped_training_goes_on_with_them(source, make_coco, settings, tmp_path):
    pytest.importorskip("detectron2")
    pytest.importorskip("faster_coco_eval")
    data, whole, cut = open_data(f"coco={make_coco()}"), Run(tmp_path / "whole"), Run(tmp_path / "cut")
    found = detection.evaluate(source, data, settings, whole)
    with pytest.raises(Stopped, match="at step 1 of 3"):
        detection.evaluate(source, data, settings, replace(cut, deadline=time.monotonic()))
    assert detection.evaluate(source, data, settings.override(OTHER), cut) == pytest.approx(found)
    losses = [[json.loads(line)["loss"] for line in (run.out / "metrics.jsonl").read_text().splitlines()] for run in (whole, cut)]
    assert losses[0] == pytest.approx(losses[1]) and len(losses[1]) == 3


def test_the_runner_keeps_what_was_trained_and_asks_anew(make_coco, tmp_path):
    pytest.importorskip("detectron2")
    root = make_coco()

    def plan(**changes):
        words = ("random:vit_demo_patch8",), ("detection:demo",), (f"coco={root}",), tmp_path / "out"
        overrides = {f"detection.{name}": str(value) for name, value in changes.items()}
        (cell,) = make_plan(*words, overrides=overrides, seeds=(0,), options=Options()).cells
        stands = standing(cell)
        announce(cell, stands)
        return cell, stands

    first, stands = plan()
    assert prepare(first, stands) == "run"
    (first.folder / "ckpt").mkdir()
    for changes in ({"checkpointing": True}, OTHER, {}):
        cell, stands = plan(**changes)
        assert (cell.folder, cell.request.key, stands.state) == (first.folder, first.request.key, "open")
        assert prepare(cell, stands) == "run" and (cell.folder / "ckpt").exists()
        assert read_request(cell.folder, pytest.fail) == cell.request and cell.request.changes == changes
    cell, stands = plan(accumulate=2)
    assert cell.request.key != first.request.key and prepare(cell, stands) == "run" and not (cell.folder / "ckpt").exists()
