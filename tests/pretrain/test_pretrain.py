"""A pretraining run: what it leaves, what it refuses, and that a cut run ends as an unbroken one."""

import hashlib
import json
import shutil
import signal

import pytest
import torch
import yaml
from PIL import Image

from backbones.source import open_source
from mae_bench.core import metrics
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.run import Run
from mae_bench.objectives._images import load_images
from mae_bench.pretrain import pretrain
from tasks.handle import open_data
from tests.core.killing import in_child
from tests.core.trainings import injected
from tests.pretrain.noisy import write_noisy

pytestmark = pytest.mark.slow

SMALL = {"epochs": "2", "batch_size": "8", "warmup_epochs": "1", "image_size": "32"}
STEPS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of 8 noisy images; val has 5 of each."""
    return open_data(f"folder={write_noisy(tmp_path_factory.mktemp('images'), 8, 5)}")


def go(objective, data, out, overrides=None, **changes):
    run = Run(out, **{"seed": 3, "save_seconds": 0.0, **changes})
    return pretrain(objective, "vit_demo_patch8", data, {**SMALL, **(overrides or {})}, run, recipe="demo")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    go("mae", data, out)
    return out


def test_R10_micro_batches_that_memory_made_smaller_are_in_the_record(data, tmp_path, monkeypatch):
    injected(monkeypatch, "engine.step:oom:2")
    go("mae", data, tmp_path)
    assert json.loads((tmp_path / "pretrain.json").read_text())["accumulate"] == 2


def test_what_a_run_leaves(whole, data):
    record = json.loads((whole / "pretrain.json").read_text())
    assert record["sha256"] == hashlib.sha256((whole / "model.safetensors").read_bytes()).hexdigest()
    assert (record["steps"], record["images"], record["device"]) == (STEPS, STEPS * 8, "cpu")
    assert record["seconds"] > 0
    assert record["images_per_second"] == pytest.approx(STEPS * 8 / record["seconds"])
    assert (record["processes"], record["accumulate"]) == (1, 1)
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert (config["objective"], config["recipe"], config["arch"], config["seed"]) == ("mae", "demo", "vit_demo_patch8", 3)
    assert config["settings"]["epochs"] == 2
    assert config["settings"]["mask_ratio"] == 0.75
    assert config["data"]["fingerprint"] == data.fingerprint
    assert "torch" in config["versions"]
    assert len(metrics.read(whole, "loss")) == STEPS
    peak = config["settings"]["base_lr"] * 8 / 256  # after the warm-up, which is the first of two epochs
    assert metrics.read(whole, "lr")[:3] == pytest.approx([0, peak / 2, peak])
    assert "done" in (whole / "log.txt").read_text()


def test_picture_has_triplets_of_held_out_images(whole):
    with Image.open(whole / "reconstructions.png") as picture:
        assert picture.mode == "RGB"
        assert picture.size[0] > 6 * 128 and picture.size[1] > 4 * 128  # eight triplets, two a row, four times enlarged


def test_checkpoint_is_a_source(whole):
    source = open_source(f"mine={whole}")
    assert source.spec.method == "mae"
    assert source.spec.pretrain_data.startswith("folder:")
    assert source.spec.image_size == (32, 32)
    assert source.ledger.summary()["matched"] > 50
    (features,) = source.build()(torch.zeros(1, 3, 32, 32))
    assert features.tokens.isfinite().all()


def test_finished_run_returns_at_once(whole, data, monkeypatch):
    monkeypatch.setattr("mae_bench.pretrain.train", None)
    before = (whole / "pretrain.json").read_bytes()
    assert go("mae", data, whole) == whole / "model.safetensors"
    assert (whole / "pretrain.json").read_bytes() == before


@pytest.mark.parametrize(
    ("objective", "changes", "said"),
    [
        ("mae", {"base_lr": "0.5"}, "base_lr is [0-9.]+ there, 0.5 here"),
        ("supervised", {}, "objective is 'mae' there, 'supervised' here"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_touched(whole, data, objective, changes, said):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=said):
        go(objective, data, whole, changes)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_other_seed_is_refused(whole, data):
    with pytest.raises(ConfigError, match="seed is 3 there, 4 here"):
        go("mae", data, whole, seed=4)


def test_a_start_that_saved_nothing_is_given_up_for_new_settings(data, tmp_path, monkeypatch):
    """What the message about memory advises can be followed where it was said."""
    out, odd = tmp_path / "out", {"batch_size": "9"}
    injected(monkeypatch, "engine.step:oom:1")
    with pytest.raises(EnvironmentFault, match="no memory for 9 samples at once; set accumulate=3, and another -o"):
        go("mae", data, out, odd)
    monkeypatch.undo()
    fresh = go("mae", data, tmp_path / "fresh", {**odd, "accumulate": "3"})
    assert go("mae", data, out, {**odd, "accumulate": "3"}).read_bytes() == fresh.read_bytes()
    assert yaml.safe_load((out / "config.yaml").read_text())["settings"]["accumulate"] == 3
    assert metrics.read(out, "loss") == metrics.read(tmp_path / "fresh", "loss")


def test_a_saved_state_or_weights_are_not_given_up(data, tmp_path, whole):
    status = in_child(lambda: go("mae", data, tmp_path / "cut"), "engine.step:kill:3")
    assert status == -signal.SIGKILL
    with pytest.raises(ConfigError, match="accumulate is 1 there, 2 here; choose another -o"):
        go("mae", data, tmp_path / "cut", {"accumulate": "2"})
    shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("ckpt"))
    with pytest.raises(ConfigError, match="accumulate is 1 there, 2 here; choose another -o"):
        go("mae", data, tmp_path / "bare", {"accumulate": "2"})


def test_cache_is_no_other_training(whole, data):
    assert go("mae", data, whole, {"cache": "never"}) == whole / "model.safetensors"


@pytest.mark.parametrize(("kind", "nth"), [("kill", 1), ("kill", 3), ("term", 2)])
def test_R01_R02_cut_run_ends_as_the_unbroken_one(whole, data, tmp_path, kind, nth):
    status = in_child(lambda: go("mae", data, tmp_path / "cut"), f"engine.step:{kind}:{nth}")
    assert status == (-signal.SIGKILL if kind == "kill" else 75)
    assert not (tmp_path / "cut" / "pretrain.json").exists()
    weights = go("mae", data, tmp_path / "cut")
    assert weights.read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics.read(tmp_path / "cut", "loss") == metrics.read(whole, "loss")
    assert (tmp_path / "cut" / "reconstructions.png").read_bytes() == (whole / "reconstructions.png").read_bytes()


def test_decoding_once_or_each_time_gives_the_same_weights(whole, data, tmp_path):
    weights = go("mae", data, tmp_path / "never", {"cache": "never"}, workers=1)
    assert weights.read_bytes() == (whole / "model.safetensors").read_bytes()


def test_small_data_is_kept_in_memory(data, monkeypatch):
    split = data.split("train")
    assert load_images(split, lambda image, label: label, "auto").decoded is not None
    assert load_images(split, lambda image, label: label, "never").decoded is None
    monkeypatch.setattr("mae_bench.objectives._images.CACHE_BYTES", len(split) * 40 * 48 * 3)
    assert load_images(split, lambda image, label: label, "auto").decoded is None


def test_supervised_run_reads_labels(data, tmp_path):
    go("supervised", data, tmp_path)
    assert open_source(str(tmp_path / "model.safetensors")).spec.method == "supervised"
    assert not (tmp_path / "reconstructions.png").exists()


@pytest.mark.edge
def test_contrastive_run(data, tmp_path):
    pytest.importorskip("lightly.loss")
    go("simclr", data, tmp_path)
    assert open_source(str(tmp_path / "model.safetensors")).spec.method == "simclr"


@pytest.mark.parametrize(
    ("objective", "arch", "overrides", "said"),
    [
        ("mea", "vit_demo_patch8", {}, "unknown objective 'mea'; did you mean mae"),
        ("mae", "vit_demo", {}, "unknown architecture 'vit_demo'; did you mean vit_demo_patch8"),
        ("mae", "vit_demo_patch8", {"mask_rate": "0.5"}, "unknown setting 'mask_rate' of mae; did you mean mask_ratio"),
        ("mae", "vit_demo_patch8", {"epochs": "0"}, "mae.epochs=0"),
        ("mae", "vit_demo_patch8", {"image_size": "30"}, "30"),
        ("mae", "vit_demo_patch8", {"decoder_heads": "7"}, "decoder_dim"),
    ],
)
def test_wrong_settings_are_one_line(data, tmp_path, objective, arch, overrides, said):
    with pytest.raises(ConfigError, match=said) as caught:
        pretrain(objective, arch, data, overrides, Run(tmp_path / "out"), recipe="demo")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unknown_recipe(data, tmp_path):
    with pytest.raises(ConfigError, match="unknown recipe mae:papper; did you mean paper"):
        pretrain("mae", "vit_demo_patch8", data, {}, Run(tmp_path), recipe="papper")
