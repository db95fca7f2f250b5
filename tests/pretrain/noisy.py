"""Noisy images of two classes, one lighter than the other."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_noisy(
    root: Path, train: int, val: int, size: tuple[int, int] = (40, 48), *, noise: int = 128, lighter: int = 120
) -> Path:
    """Write an image folder for `-d folder=ROOT`.

    Args:
        root: the folder.
        train: images of each class to train on.
        val: the same to measure on.
        size: height and width in pixels.
        noise: dark pixels are below it.
        lighter: what the pixels of the light class have more.
    """
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name in ("dark", "light"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, noise, (*size, 3)) + lighter * (name == "light")
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{index}.png")
    return root
