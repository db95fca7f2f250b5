"""Damaged images: left out of training within a limit and named, refused in evaluation; the same in all tasks."""

import json

import pytest

from backbones.source import open_source
from mae_bench.core.errors import InputError
from mae_bench.core.run import Run
from mae_bench.core.samples import skipped_images
from tasks.handle import open_data
from tasks.suite import finetune, knn, linear, logistic, partial

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


@pytest.mark.parametrize("task", ["knn", "linear", "finetune"])
@pytest.mark.parametrize("workers", [0, 2])
def test_I04_a_damaged_image_of_val_is_refused_by_name(source, own_colours, tmp_path, task, workers):
    root = own_colours(4)
    spoil(root / "val/green/1.png", "html")
    module, config = TASKS[task]
    with pytest.raises(
        InputError, match=r"^cannot decode image .*val/green/1\.png: it is not an image .*; replace or remove it$"
    ):
        module.evaluate(source, open_data(f"folder={root}"), config, Run(tmp_path / "out", workers=workers))


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
