import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def _save_image(path: Path, size: tuple[int, int] = (40, 30), colour: tuple[int, int, int] = (200, 100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for index in range(2):
                _save_image(tmp_path / split / name / f"{index}.png")
    return tmp_path


class Coco:
    """A small COCO data set that a test spoils before writing: two images of 40x30, two categories with a gap."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[str, Any] = {
            "images": [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30} for number in (5, 2)],
            "annotations": [self.object(1), self.object(2, image_id=2, category_id=90)],
            "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        }

    @staticmethod
    def object(number: int, **changes: Any) -> dict[str, Any]:
        values = {
            "id": number,
            "image_id": 5,
            "category_id": 3,
            "bbox": [4, 5, 10, 12],
            "area": 120,
            "iscrowd": 0,
            "segmentation": [[4, 5, 14, 5, 14, 17, 4, 17]],
        }
        return {key: value for key, value in (values | changes).items() if value is not ...}

    def write(self, *, year: str = "2017", folder_year: str | None = None) -> Path:
        (self.root / "annotations").mkdir(exist_ok=True)
        text = json.dumps(self.content)
        for split in ("train", "val"):
            (self.root / f"annotations/instances_{split}{year}.json").write_text(text)
            for number in (2, 5):
                _save_image(self.root / f"{split}{year if folder_year is None else folder_year}" / f"{number}.jpg")
        return self.root


@pytest.fixture
def coco(tmp_path: Path) -> Coco:
    return Coco(tmp_path)


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    labels = np.arange(30 * 40).reshape(30, 40) % 4
    for folder in ("training", "validation"):
        for name in ("a", "b"):
            _save_image(tmp_path / "images" / folder / f"{name}.jpg")
            _save_map(tmp_path / "annotations" / folder / f"{name}.png", labels)
    return tmp_path


def _save_map(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


@pytest.fixture
def save_image() -> Callable[..., Path]:
    """Write an image of one colour: `save_image(path, size, colour)`."""
    return _save_image


@pytest.fixture
def save_map() -> Callable[[Path, np.ndarray], None]:
    """Write an array as an 8-bit label map: `save_map(path, labels)`."""
    return _save_map
