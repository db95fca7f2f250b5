"""What is done to images, against timm's and torchvision's own pipelines."""

import random
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torchvision.transforms import InterpolationMode, v2

from mae_bench.core.seeding import seed_host
from tasks.common.images import CropOnce, evaluation_transform, finetune_transform, probe_transform
from tasks.common.sizes import crop_ratio

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int = 260, height: int = 180) -> Image.Image:
    """Smooth shapes and noise, so that a change of filter or place shows."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / (5 + band) + y / 9) for band in range(3)]
    noise = np.random.default_rng(0).integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8))


def timms(**words: Any) -> Callable[[Image.Image], torch.Tensor]:
    return cast(Callable[[Image.Image], torch.Tensor], create_transform(interpolation="bicubic", mean=MEAN, std=STD, **words))


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_finetune_training_is_timms_pipeline():
    """The call of mae's `build_transform`; erasing comes later, on batches."""
    theirs = timms(input_size=224, is_training=True, color_jitter=None, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.0)
    ours = finetune_transform((224, 224), (0.08, 1.0), 0.5, "rand-m9-mstd0.5-inc1", MEAN)
    for number in range(30):
        results = []
        for transform in (theirs, ours):
            seed_host("transform", number)
            results.append(transform(picture()))
        assert results[1].dtype == torch.uint8
        assert torch.allclose(results[0], normalised(results[1]), atol=1e-5), number


def test_rand_augment_interpolates_bicubically_only(monkeypatch):
    """timm draws between two filters when it is not told."""
    used = set()
    whole = Image.Image.transform

    def note(self, size, method, data=None, resample=0, *more, **words):
        used.add(Image.Resampling(resample))
        return whole(self, size, method, data, resample, *more, **words)

    monkeypatch.setattr(Image.Image, "transform", note)
    transform = finetune_transform((64, 64), (0.08, 1.0), 0.5, "rand-m9-mstd0.5-inc1", MEAN)
    random.seed(0)
    for _ in range(60):
        transform(picture(100, 80))
    assert used == {Image.Resampling.BICUBIC}


@pytest.mark.parametrize("size", [224, 384])
def test_finetune_evaluation_is_resize_and_centre_crop(size):
    """mae `util/datasets.py`: 224 of 256 up to 224, the whole shorter side above."""
    resized = 256 if size == 224 else size
    theirs = v2.Compose([v2.Resize(resized, interpolation=InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor()])
    ours = evaluation_transform((size, size), crop_ratio((size, size), None))
    assert torch.equal(ours(picture(500, 400)), theirs(picture(500, 400)))


def test_evaluation_is_timms_pipeline():
    theirs = timms(input_size=224, crop_pct=0.875)
    ours = evaluation_transform((224, 224), 0.875)
    for width, height in ((260, 180), (180, 260), (300, 300), (1000, 333)):
        image = picture(width, height)
        assert torch.allclose(theirs(image), normalised(ours(image)), atol=1e-5)


def test_the_probes_crop_is_torchvisions_where_its_first_draw_fits():
    """Of a square image most draws fit, so that the two must agree on most, and may differ where torchvision draws again."""
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(96, (0.08, 1.0), interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    ours, image = probe_transform((96, 96), (0.08, 1.0), 0.5), picture(200, 200)
    same = 0
    for number in range(50):
        results = []
        for transform in (theirs, ours):
            seed_host("crop", number)
            results.append(transform(image))
        same += torch.equal(*results)
    assert 35 <= same < 50


def test_the_probes_crop_draws_once_where_torchvision_takes_the_centre():
    """In an image of 10:1 hardly any draw fits: torchvision ends at the centre, the published crop cuts and stays random."""
    image = Image.fromarray(np.repeat(np.arange(400, dtype=np.uint16)[None] // 2, 40, axis=0).astype(np.uint8)).convert("RGB")
    crop = CropOnce((32, 32), (0.9, 1.0))
    means = []
    for number in range(20):
        seed_host("thin", number)
        cut = np.asarray(crop(image))
        assert cut.shape == (32, 32, 3)
        means.append(cut.mean())
    assert np.std(means) > 10


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_crops_of_extreme_images(size):
    assert probe_transform((32, 32), (0.08, 1.0), 0.5)(Image.new("RGB", size)).shape == (3, 32, 32)
    assert evaluation_transform((32, 32), 0.875)(Image.new("RGB", size)).shape == (3, 32, 32)


def test_areas_of_the_probes_crop_are_uniform(monkeypatch):
    """A square image of which small parts are taken: nothing sticks out, so that area and aspect are as drawn."""
    crops = []
    whole = Image.Image.crop

    def note(self, box=None):
        crops.append(box)
        return whole(self, box)

    monkeypatch.setattr(Image.Image, "crop", note)
    crop, image = CropOnce((8, 8), (0.1, 0.5)), picture(200, 200)
    seed_host("areas")
    for _ in range(1000):
        crop(image)
    boxes = np.array(crops)
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas = widths * heights / 200**2
    assert areas.mean() == pytest.approx(0.3, abs=0.02) and areas.std() == pytest.approx(0.4 / 12**0.5, abs=0.02)
    assert (widths / heights).min() > 0.72 and (widths / heights).max() < 1.39
