"""What pretraining is fed: the exact pixels by every way of decoding, crops at reduced scale, the wait for data in the log."""

import io
import tarfile
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2

from backbones.source import open_source
from mae_bench.core import faults, metrics
from mae_bench.core.batches import Seeded
from mae_bench.core.errors import ConfigError, InputError, Stopped
from mae_bench.core.run import Run
from mae_bench.core.waiting import STEPS_OF_A_GROUP, Waiting
from mae_bench.objectives import mae
from mae_bench.objectives._cropping import Crop, Picture
from mae_bench.objectives._images import Images, load_images
from mae_bench.pretrain import pretrain
from tasks import encoded
from tasks.encoded import Encoded
from tasks.handle import open_data
from tasks.images import decode_rgb
from tasks.suite import knn

SMALL = {"epochs": "2", "batch_size": "8", "warmup_epochs": "1", "image_size": "32", "decoder_dim": "16"}


def photograph(width: int, height: int, seed: int = 0, *, fine: bool = True) -> Image.Image:
    """Noise at several scales."""
    rng = np.random.default_rng(seed)
    parts = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (max(2, height // s), max(2, width // s), 3), dtype=np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            dtype=np.float32,
        )
        for s in (60, 15, 4)
    ]
    mixed = 0.6 * parts[0] + 0.3 * parts[1] + 0.1 * parts[2]
    return Image.fromarray(mixed.astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixteen photographs of 320x240 in two classes; val has one of each."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 16), ("val", 2)):
        for index in range(count):
            path = root / split / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(photograph(320, 240, index), quality=90))
    return open_data(f"folder={root}")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "optimize": True}])
def test_simplejpeg_gives_pillows_pixels(mode, subsampling, options):
    pytest.importorskip("simplejpeg")
    for width, height in ((101, 67), (64, 64), (1, 1), (7, 300)):
        content = jpeg(photograph(width, height).convert(mode), subsampling=subsampling, **options)
        pixels = Encoded(content, "x").pixels()
        assert np.array_equal(pixels, np.asarray(decode_rgb(content, "x")))
        assert np.array_equal(pixels, np.asarray(Encoded(content, "x").image()))
        assert pixels.flags.writeable
        fast = Encoded(content, "x")._by_simplejpeg()
        assert (fast is None) == (mode == "CMYK")  # so that both ways were compared


@pytest.mark.parametrize("spoil", [lambda c: c[: len(c) // 2], lambda c: c[:-2], lambda c: b"", lambda c: b"junk" + c])
def test_what_pillow_refuses_is_refused_with_simplejpeg_too(spoil, tmp_path):
    pytest.importorskip("simplejpeg")
    path = tmp_path / "x.jpg"
    path.write_bytes(spoil(jpeg(photograph(64, 48))))
    for source in (path, path.read_bytes()):
        with pytest.raises(InputError) as ours:
            Encoded(source, "x.jpg").pixels()
        with pytest.raises(InputError) as theirs:
            decode_rgb(source, "x.jpg")
        assert str(ours.value) == str(theirs.value)


def test_a_bomb_is_left_to_pillow(monkeypatch):
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="exceeds limit"):
        Encoded(jpeg(photograph(64, 48)), "x").pixels()


def test_the_same_samples_without_simplejpeg(data, monkeypatch):
    spec = open_source("random:vit_demo_patch8").spec
    images = load_images(data.split("train"), mae.sample(mae.RECIPES["demo"], spec), "never")
    ours = [Seeded(images, 0)[1, index] for index in range(4)]
    monkeypatch.setattr(encoded, "simplejpeg", lambda: None)
    for index, (view, noise) in enumerate(ours):
        again, other = Seeded(images, 0)[1, index]
        assert torch.equal(view, again) and torch.equal(noise, other)


def test_a_crop_is_torchvisions():
    image = torch.from_numpy(np.array(photograph(90, 70))).permute(2, 0, 1)
    theirs = v2.RandomResizedCrop((32, 32), (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = theirs(image)
        torch.manual_seed(seed)
        assert torch.equal(Crop((32, 32), (0.2, 1.0))(image), expected)


def test_a_crop_that_needs_the_resolution_is_exact_and_others_are_close():
    """A picture's crop is the tensor's crop of the same draws: bit for bit where nothing is reduced, else nearly."""
    photo = photograph(640, 480)
    content = jpeg(photo, quality=95)
    whole = torch.from_numpy(np.array(decode_rgb(content, "x"))).permute(2, 0, 1)
    differences = []
    for size, scale in (((224, 224), (0.2, 0.5)), ((64, 64), (0.2, 1.0)), ((48, 32), (0.5, 1.0))):
        crop = Crop(size, scale)
        for seed in range(6):
            picture = Picture(Encoded(content, "x"))
            torch.manual_seed(seed)
            expected = crop(whole)
            torch.manual_seed(seed)
            found = crop(picture)
            assert found.shape == expected.shape and found.dtype == torch.uint8
            (shrink,) = picture._decoded
            difference = (found.float() - expected.float()).abs().mean().item()
            if shrink == 1:
                assert torch.equal(found, expected)
            else:
                differences.append((shrink, difference))
    assert {shrink for shrink, _ in differences} >= {2, 4}
    assert max(difference for _, difference in differences) < 6
    assert np.mean([difference for _, difference in differences]) > 0


def test_no_crop_is_made_larger_than_it_was_decoded(monkeypatch):
    asked = []
    content = jpeg(photograph(803, 601))
    monkeypatch.setattr(
        "mae_bench.objectives._cropping.resized",
        lambda image, box, size: asked.append((box, size, image.shape)) or torch.zeros(3, *size),
    )
    crop = Crop((40, 40), (0.05, 1.0))
    for seed in range(40):
        torch.manual_seed(seed)
        crop(Picture(Encoded(content, "x")))
    for (top, left, height, width), size, (_, rows, columns) in asked:
        assert 0 <= top and top + height <= rows and 0 <= left and left + width <= columns
        assert (height >= size[0] - 1 and width >= size[1] - 1) or (rows, columns) == (601, 803)
    assert len({shape for _, _, shape in asked}) >= 3


def test_png_is_never_reduced():
    photo = photograph(256, 256)
    whole = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    crop = Crop((32, 32), (0.9, 1.0))
    torch.manual_seed(0)
    expected = crop(whole)
    torch.manual_seed(0)
    assert torch.equal(crop(Picture(Encoded(png(photo), "x"))), expected)


@pytest.mark.parametrize("objective", ["mae", "supervised", "simclr", "byol", "mocov3", "dino"])
def test_reduced_samples_are_a_function_of_seed_epoch_and_index(data, objective):
    from mae_bench.core import find

    if objective != "mae" and objective != "supervised":
        pytest.importorskip("lightly")
    module = find.load("mae_bench.objectives", objective, what="objective")
    config = module.RECIPES["demo"]
    spec = open_source("random:vit_demo_patch8").spec
    images = load_images(data.split("train"), module.sample(config, spec), "auto", reduced=True)
    assert isinstance(images, Images) and images.decoded is None
    one, two = (module.collate([Seeded(images, 7)[epoch, 3]]) for epoch in (1, 1))
    other = module.collate([Seeded(images, 7)[2, 3]])
    flat = [torch.cat([v.flatten().float() for v in (b.values() if isinstance(b, dict) else [b])]) for b in (one, two, other)]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])


def test_reduced_decode_shapes_the_weights_and_is_refused_where_it_does_nothing(data, tmp_path):
    run = Run(tmp_path / "out", seed=1)
    pretrain("mae", "vit_demo_patch8", data, {**SMALL, "reduced_decode": "true"}, run, recipe="demo")
    with pytest.raises(ConfigError, match="reduced_decode is True there, False here"):
        pretrain("mae", "vit_demo_patch8", data, SMALL, run, recipe="demo")
    for contradiction in ({"cache": "always"}, {"augmentation": "none"}, {"augmentation": "fixed_crop"}):
        with pytest.raises(ConfigError, match="reduced_decode"):
            settings = {**SMALL, "reduced_decode": "true", **contradiction}
            pretrain("mae", "vit_demo_patch8", data, settings, Run(tmp_path / "no"), recipe="demo")


def test_the_wait_for_data_is_in_the_log(data, tmp_path, monkeypatch):
    """A loader that is made slow shows as such; one that is not, does not."""
    slow = Images.__getitem__

    def sluggish(self, index):
        time.sleep(0.05)
        return slow(self, index)

    monkeypatch.setattr(Images, "__getitem__", sluggish)
    settings = {**SMALL, "epochs": "6"}
    pretrain("mae", "vit_demo_patch8", data, settings, Run(tmp_path), recipe="demo")
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


def test_shards_train_the_same_weights_as_the_folder_they_were_made_of(data, tmp_path, monkeypatch):
    """Resumed after a signal, by two workers: random access is what makes it exact. And kNN reads them as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for which in ("train", "val"):
        split = data.split(which)
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
    pretrain("mae", "vit_demo_patch8", data, settings, Run(tmp_path / "folder"), recipe="demo")
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
    assert knn.evaluate(source, shards, config, Run(tmp_path / "a")) == knn.evaluate(source, data, config, Run(tmp_path / "b"))
