"""A small backbone, small settings, and ADE20K folders of plain rectangles."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones.arch import VitArch
from backbones.contract import DenseOptions
from backbones.vit import TimmViT, initial_weights
from backbones.zoo import vit
from tasks.suite.segmentation import Config

COLOURS = np.array([(0, 0, 0), (90, 90, 90), (220, 40, 40), (40, 60, 220)], np.uint8)
"""Of labels 0 (not labelled) to 3."""
NAMES = ("ground", "red", "blue")


@pytest.fixture
def settings() -> Config:
    """The segmentation task at its smallest."""
    return Config(
        relative_table=False,
        layer_scale=None,
        image_size=32,
        channels=8,
        aux_channels=8,
        drop_path=0.0,
        lr=1e-3,
        layer_decay=0.8,
        warmup_steps=1,
        batch_size=2,
        steps=3,
    )


def tiny_backbone(*, patch: int = 8, depth: int = 4, seed: int = 0, options: DenseOptions | None = None) -> TimmViT:
    """A ViT of width 16."""
    arch = VitArch(embed_dim=16, depth=depth, num_heads=2, patch_size=patch, mlp_dim=32, image_size=(4 * patch, 4 * patch))
    return vit.assemble(arch, vit.spec_of(arch, method="random", pretrain_data="none"), initial_weights(arch, seed), options)


def tiny_source(**wanted: Any) -> Any:
    """Stands for a `Source` of that backbone."""

    def build(options: DenseOptions | None = None, *, seed: int = 0) -> TimmViT:
        return tiny_backbone(seed=seed, options=options, **wanted)

    return SimpleNamespace(spec=tiny_backbone(**wanted).spec, sha256="0" * 64, build=build)


@pytest.fixture
def make_ade(tmp_path: Path) -> Callable[..., Path]:
    """Write an ADE20K folder of rectangles; three classes, unless other label maps are given by name of the split's folder."""

    def make(maps: dict[str, list[np.ndarray]] | None = None, *, classes: tuple[str, ...] = NAMES) -> Path:
        root = tmp_path / "ade"
        for folder, labels in (maps or {"training": rectangles(6, 0), "validation": rectangles(3, 1)}).items():
            for side in ("images", "annotations"):
                (root / side / folder).mkdir(parents=True)
            for number, label in enumerate(labels):
                Image.fromarray(COLOURS[np.minimum(label, 3)]).save(root / "images" / folder / f"{number}.png")
                Image.fromarray(label).save(root / "annotations" / folder / f"{number}.png")
        (root / "classes.json").write_text(json.dumps(classes))
        return root

    return make


def rectangles(count: int, seed: int, *, size: tuple[int, int] = (40, 56)) -> list[np.ndarray]:
    """Label maps: ground with a red and a blue rectangle, and a strip along the top that is not labelled."""
    rng, maps = np.random.default_rng(seed), []
    for _ in range(count):
        labels = np.ones(size, np.uint8)
        for value in (2, 3):
            top, left = rng.integers(4, size[0] - 18), rng.integers(0, size[1] - 18)
            labels[top : top + 16, left : left + 16] = value
        labels[:3] = 0
        maps.append(labels)
    return maps
