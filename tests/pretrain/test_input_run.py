"""Pretraining as its input is: reduced, slow, in shards."""

import io
import tarfile
import time

import pytest
import torch
from safetensors.torch import load_file

from backbones.source import open_source
from mae_bench.core import faults, metrics
from mae_bench.core.errors import ConfigError, Stopped
from mae_bench.core.run import Run
from mae_bench.core.waiting import STEPS_OF_A_GROUP, Waiting
from mae_bench.objectives._images import Images
from mae_bench.pretrain import pretrain
from tasks.handle import open_data
from tasks.suite import knn

SMALL = {"epochs": "2", "batch_size": "8", "warmup_epochs": "1", "image_size": "32", "decoder_dim": "16"}


def test_reduced_decode_shapes_the_weights_and_is_refused_where_it_does_nothing(photographs, tmp_path):
    run = Run(tmp_path / "out", seed=1)
    pretrain("mae", "vit_demo_patch8", photographs, {**SMALL, "reduced_decode": "true"}, run, recipe="demo")
    with pytest.raises(ConfigError, match="reduced_decode is True there, False here"):
        pretrain("mae", "vit_demo_patch8", photographs, SMALL, run, recipe="demo")
    for contradiction in ({"cache": "always"}, {"augmentation": "none"}, {"augmentation": "fixed_crop"}):
        with pytest.raises(ConfigError, match="reduced_decode"):
            settings = {**SMALL, "reduced_decode": "true", **contradiction}
            pretrain("mae", "vit_demo_patch8", photographs, settings, Run(tmp_path / "no"), recipe="demo")


@pytest.mark.slow
def test_the_wait_for_data_is_in_the_log(photographs, tmp_path, monkeypatch):
    """A loader that is made slow shows as such; one that is not, does not."""
    slow = Images.__getitem__

    def sluggish(self, index):
        time.sleep(0.05)
        return slow(self, index)

    monkeypatch.setattr(Images, "__getitem__", sluggish)
    settings = {**SMALL, "epochs": "6"}
    pretrain("mae", "vit_demo_patch8", photographs, settings, Run(tmp_path), recipe="demo")
    (share,) = metrics.read(tmp_path, "log/waiting")
    (speed,) = metrics.read(tmp_path, "log/images_per_second")
    (step_speed,) = metrics.read(tmp_path, "log/step_images_per_second")
    assert 0.3 < share <= 1
    assert speed < 8 / (8 * 0.05)
    assert step_speed == pytest.approx(speed / (1 - share), rel=0.02)


def test_waiting_counts_the_wait_alone_and_once_a_group(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def source():
        while True:
            now[0] += 1
            yield "batch"

    waiting, batches = Waiting(), source()
    for step in range(STEPS_OF_A_GROUP):
        assert waiting.numbers() == {}
        waiting.next(batches)
        now[0] += 3
        waiting.count(8)
        if step == 4:
            now[0] += 100
            waiting.leave_out(100)
    numbers = waiting.numbers()
    assert numbers == {"log/waiting": 0.25, "log/images_per_second": 2.0, "log/step_images_per_second": 2.67}
    assert waiting.share == 0.25 and waiting.numbers() == {}


@pytest.mark.slow
def test_shards_train_the_same_weights_as_the_folder_they_were_made_of(photographs, tmp_path, monkeypatch):
    """Resumed after a signal, by two workers: random access is what makes it exact. And kNN reads them as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for which in ("train", "val"):
        split = photographs.split(which)
        for shard in range(2):
            with tarfile.open(tmp_path / f"{which}-{shard:06d}.tar", "w") as tar:
                half = len(split) // 2
                for index in range(shard * half, (shard + 1) * half):
                    label = str(split.labels[index]).encode()
                    for ending, content in (("jpg", split.paths[index].read_bytes()), ("cls", label)):
                        info = tarfile.TarInfo(f"{index:04d}.{ending}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    shards = open_data(f"shards={tmp_path}")
    settings = {**SMALL, "cache": "never"}
    pretrain("mae", "vit_demo_patch8", photographs, settings, Run(tmp_path / "folder"), recipe="demo")
    monkeypatch.setenv(faults.VARIABLE, "engine.step:term:2")
    faults._visits.clear()
    run = Run(tmp_path / "shards", workers=2, save_seconds=0.0)
    with pytest.raises(Stopped):
        pretrain("mae", "vit_demo_patch8", shards, settings, run, recipe="demo")
    monkeypatch.delenv(faults.VARIABLE)
    pretrain("mae", "vit_demo_patch8", shards, settings, run, recipe="demo")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("shards", "folder"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    source, config = open_source(str(tmp_path / "folder")), knn.RECIPES["demo"].model_copy(update={"k": 3})
    assert knn.evaluate(source, shards, config, Run(tmp_path / "a")) == knn.evaluate(
        source, photographs, config, Run(tmp_path / "b")
    )
