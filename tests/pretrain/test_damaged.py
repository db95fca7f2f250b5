"""Damaged images in a pretraining: left out, counted and named within a limit, in whatever way images are kept and loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from mae_bench.core.errors import InputError
from mae_bench.core.run import Run
from mae_bench.objectives._images import held_out, load_images
from mae_bench.pretrain import pretrain
from tasks.handle import open_data
from tests.pretrain.noisy import write_noisy

pytestmark = pytest.mark.slow

SMALL = {"epochs": "2", "batch_size": "8", "warmup_epochs": "1", "image_size": "16", "decoder_dim": "16"}


@pytest.fixture
def root(tmp_path):
    """Sixteen images to train on, of which the first cannot be decoded."""
    root = write_noisy(tmp_path / "images", 8, 2, (20, 24))
    spoil(root / "train/dark/0.png")
    return root


def spoil(path):
    path.write_bytes(path.read_bytes()[:60])


def go(root, out, workers=0, **settings):
    run = Run(out, seed=3, save_seconds=0.0, workers=workers)
    return pretrain("mae", "vit_demo_patch8", open_data(f"folder={root}"), {**SMALL, **settings}, run, recipe="demo")


def skipped(out):
    return [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]


def test_I04_it_is_left_out_and_named_however_images_are_kept(root, tmp_path):
    weights = []
    for cache, workers in (("auto", 0), ("always", 0), ("never", 2)):
        out = tmp_path / cache
        weights.append(load_file(go(root, out, workers, cache=cache)))
        (line,) = skipped(out)
        assert "train/dark/0.png" in line["reason"] and line["split"] == "train"
    assert all(torch.equal(one[name], weights[0][name]) for one in weights for name in weights[0])


def test_more_than_the_limit_is_told_and_a_higher_one_goes_on(root, tmp_path):
    spoil(root / "train/light/1.png")
    with pytest.raises(InputError, match="2 of 16 training images cannot be read, and 1 may be skipped"):
        go(root, tmp_path / "cut")
    higher = go(root, tmp_path / "cut", max_skipped="0.2")
    whole = go(root, tmp_path / "whole", max_skipped="0.2")
    assert higher.read_bytes() == whole.read_bytes()
    assert len(skipped(tmp_path / "cut")) == 2
    with pytest.raises(InputError, match=r"^cannot decode image .*\.png"):
        go(root, tmp_path / "none", max_skipped="0")


def test_a_damaged_image_keeps_neither_the_picture_nor_the_target_from_being_made(root, tmp_path, caplog):
    spoil(root / "val/dark/0.png")
    go(root, tmp_path / "out", target="pca", norm_pix_loss="false", pca_dims="8")
    assert (tmp_path / "out/reconstructions.png").exists()
    assert "val/dark/0.png" in caplog.text
    shown = held_out(open_data(f"folder={root}").split("val"), 4, (16, 16))
    assert torch.equal(shown[0], shown[1])


def test_where_all_are_damaged_that_is_said(root, tmp_path):
    for path in root.glob("train/*/*.png"):
        spoil(path)
    split = open_data(f"folder={root}").split("train")
    assert load_images(split, lambda image, label: label, "auto").decoded is None
    with pytest.raises(InputError, match="none of 16 images can be read"):
        held_out(split, 2, (16, 16))
    with pytest.raises(InputError, match=r"cannot (be read|decode)"):
        go(root, tmp_path / "out")


def test_I17_a_class_with_one_image_is_trained_on(root, tmp_path):
    """A folder of labels says nothing to an objective without them; a supervised one takes what there is."""
    for path in list((root / "train/dark").iterdir())[1:]:
        path.unlink()
    shutil.copy(root / "train/light/0.png", root / "train/dark/0.png")
    out = go(root, tmp_path / "out", batch_size="4")
    assert out.exists()
