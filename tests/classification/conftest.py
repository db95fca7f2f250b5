"""A data set that any features but constant ones can tell apart, and one with damaged files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def _noisy(colour: tuple[int, int, int], seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(-25, 26, (40, 40, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def _write(root: Path, images: int) -> Path:
    for first, split in ((0, "train"), (1000, "val")):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(images):
                _noisy(colour, first + index).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of three colours, 8 of each in each split."""
    return _write(tmp_path_factory.mktemp("colours"), 8)


@pytest.fixture
def own_colours(tmp_path: Path) -> Callable[[int], Path]:
    """The same with any number of pictures, in a folder of the test's own."""
    return lambda images: _write(tmp_path / "data", images)
