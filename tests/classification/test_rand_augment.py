"""RandAugment as the recipes ask for it, at every magnitude that they draw."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from backbones.source import open_source
from mae_bench.objectives import supervised
from mae_bench.objectives._classifier import augmentation
from tasks.common.images import finetune_transform
from tasks.common.rand_augment import mended

POLICY = "rand-m9-mstd0.5-inc1"


@pytest.mark.parametrize(("magnitude", "values"), [(10, {0}), (9, {0, 128}), (0, set(range(0, 256, 16)))])
def test_a_posterisation_that_keeps_no_bit_makes_black(magnitude, values):
    policy = mended(rand_augment_transform(f"rand-m{magnitude}-inc1", {}))
    [posterise] = [operation for operation in policy.ops if operation.name == "PosterizeIncreasing"]
    posterise.prob = 1.0
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    found = np.asarray(posterise(image))
    assert set(np.unique(found)) == values and found.shape == (16, 16, 3)


def test_both_trainings_draw_from_mended_policies(monkeypatch):
    """All operations at the highest magnitude, many times."""
    random.seed(0)
    np.random.seed(0)
    monkeypatch.setattr("timm.data.auto_augment.random.gauss", lambda mean, deviation: 10.0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    tuned = finetune_transform((32, 32), (0.5, 1.0), 0.5, POLICY, (0.5, 0.5, 0.5))
    spec = open_source("random:vit_demo_patch8").spec
    config = supervised.RECIPES["paper"]
    assert config.rand_augment == POLICY
    trained, pixels = augmentation(config, spec), torch.from_numpy(np.array(image)).permute(2, 0, 1)
    for _ in range(300):
        assert tuned(image).shape == (3, 32, 32)
        assert trained(pixels).shape == (3, *spec.image_size)
