"""Damaged images: left out of training within a limit and named, refused in evaluation; the same in all tasks."""

import json
import os
import socket
import sys
from functools import partial as bound

import pytest

from backbones.source import open_source
from mae_bench.core.errors import InputError
from mae_bench.core.progress import Silent
from mae_bench.core.run import Run
from mae_bench.core.samples import skipped_images
from tasks.common.images import Labelled, split_of
from tasks.common.readable import read_through
from tasks.handle import open_data
from tasks.suite import finetune, knn, linear, logistic, partial
from tests.core.killing import forked, status_of

pytestmark = pytest.mark.slow

SHORT = {"epochs": 1, "warmup_epochs": 0, "batch_size": 8}
TASKS = {
    "knn": (knn, knn.Config(k=3)),
    "linear": (linear, linear.RECIPES["paper"].override(SHORT)),
    "linear-cached": (linear, linear.RECIPES["cached"].override({**SHORT, "rates": 2})),
    "logistic": (logistic, logistic.RECIPES["demo"].override({"max_iter": 5})),
    "finetune": (finetune, finetune.RECIPES["demo"].override(SHORT)),
    "partial": (partial, partial.RECIPES["demo"].override(SHORT)),
}
DAMAGE = {"empty": b"", "html": b"<html>404</html>", "cut": None}


@pytest.fixture(scope="module")
def source():
    return open_source("random:vit_demo_patch8")


def spoil(path, damage):
    content = DAMAGE[damage]
    path.write_bytes(path.read_bytes()[:200] if content is None else content)


@pytest.mark.parametrize("task", TASKS)
def test_I01_a_damaged_training_image_is_left_out_and_named(source, own_colours, tmp_path, task):
    root = own_colours(4)
    spoil(root / "train/green/1.png", "cut")
    module, config = TASKS[task]
    run = Run(tmp_path / "out", workers=2 if task == "finetune" else 0)
    module.evaluate(source, open_data(f"folder={root}"), config, run)
    lines = [json.loads(text) for text in (run.out / "skipped.jsonl").read_text().splitlines()]
    assert len(lines) == 1 and "train/green/1.png" in lines[0]["reason"]
    assert skipped_images(run.out) == 1


class Titles(Silent):
    """A reporter that keeps the titles."""

    def __init__(self):
        self.found = []

    def start(self, title, total, done=0):
        self.found.append(title)


@pytest.mark.parametrize("task", ["knn", "linear", "linear-cached", "finetune", "partial"])
@pytest.mark.parametrize("workers", [0, 2])
def test_I04_a_damaged_image_of_val_is_refused_by_name(source, own_colours, tmp_path, task, workers):
    root = own_colours(4)
    spoil(root / "val/green/1.png", "html")
    module, config = TASKS[task]
    with pytest.raises(
        InputError, match=r"^cannot decode image .*val/green/1\.png: it is not an image .*; replace or remove it$"
    ):
        module.evaluate(source, open_data(f"folder={root}"), config, Run(tmp_path / "out", workers=workers))
    assert not (tmp_path / "out/ckpt").exists()  # nothing has been trained for it


def test_val_is_read_before_a_training_alone(source, own_colours, tmp_path):
    module, config = TASKS["finetune"]
    titles = Titles()
    data, run = open_data(f"folder={own_colours(4)}"), Run(tmp_path / "out", reporter=titles)
    first = module.evaluate(source, data, config, run)
    assert titles.found == ["fine-tune: reading val images", "fine-tune", "evaluate"]
    titles.found.clear()
    assert module.evaluate(source, data, config, run) == first
    assert titles.found == ["fine-tune", "evaluate"]


def test_the_error_of_one_process_ends_all(own_colours, tmp_path):
    """The second process reads the damaged image, and the first one tells how a cell ended."""
    root = own_colours(2)  # of each of three colours
    spoil(root / "val/green/1.png", "html")
    val = Labelled(split_of(open_data(f"folder={root}"), "val"), lambda image: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}

    def work(rank):
        os.environ.update({**place, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        titles = Titles()
        try:
            read_through(val, Run(tmp_path, reporter=titles), "some task")
        finally:
            (tmp_path / f"{rank}.txt").write_text(f"{titles.found} {sys.exc_info()[1]}")

    children = [forked(bound(work, rank)) for rank in range(2)]
    assert [status_of(child) for child in children] == [InputError.exit_code] * 2
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert first == second and "some task: reading val images" in first and "val/green/1.png" in first


@pytest.mark.parametrize("task", ["knn", "linear"])
def test_too_many_damaged_images_end_the_cell(source, own_colours, tmp_path, task):
    root = own_colours(4)
    for name, damage in (("green", "empty"), ("red", "html")):
        spoil(root / f"train/{name}/1.png", damage)
    module, config = TASKS[task]
    with pytest.raises(InputError, match="2 of 12 training images cannot be read, and 1 may be skipped"):
        module.evaluate(source, open_data(f"folder={root}"), config, Run(tmp_path / "out"))
    module.evaluate(source, open_data(f"folder={root}"), config, Run(tmp_path / "more", max_skipped=0.2))
    assert skipped_images(tmp_path / "more") == 2


def test_nothing_is_left_out_where_nothing_may_be(source, own_colours, tmp_path):
    root = own_colours(4)
    spoil(root / "train/green/1.png", "empty")
    with pytest.raises(InputError, match=r"^cannot decode image .*train/green/1\.png"):
        knn.evaluate(source, open_data(f"folder={root}"), knn.Config(k=3), Run(tmp_path / "out", max_skipped=0.0))


def test_a_second_run_in_the_same_folder_counts_anew(source, own_colours, tmp_path):
    root = own_colours(4)
    spoil(root / "train/green/1.png", "empty")
    for _ in range(2):
        knn.evaluate(source, open_data(f"folder={root}"), knn.Config(k=3), Run(tmp_path / "out"))
    assert skipped_images(tmp_path / "out") == 1
