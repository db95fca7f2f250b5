"""A small backbone, small settings, and COCO folders of plain rectangles."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.arch import VitArch
from backbones.contract import DenseOptions
from backbones.vit import TimmViT, initial_weights
from backbones.zoo import vit
from mae_bench.core.optim import OptimConfig
from mae_bench.core.schedule import ScheduleConfig
from tasks.data import coco
from tasks.suite.detection import Config, HeadConfig

SIDE = 64
CATEGORIES = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
COLOURS = {3: (220, 40, 40), 7: (40, 60, 220)}

HEAD = HeadConfig(
    channels=8,
    anchor_scales=(4.0,),
    rpn_convs=1,
    rpn_anchors=16,
    proposals_before_nms=(40, 40),
    proposals=(20, 20),
    roi_level_size=64,
    rois=8,
    box_convs=(8,),
    box_fcs=(16,),
    mask_convs=(8, 8),
    score_threshold=0.0,
    detections=10,
)


@pytest.fixture
def settings() -> Config:
    """The detection task at its smallest."""
    return Config(
        image_size=SIDE,
        scale=(0.8, 1.2),
        flip=0.5,
        window=0,
        rel_pos=False,
        drop_path=0.0,
        head=HEAD,
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, layer_decay=0.8),
        schedule=ScheduleConfig(warmup_steps=1),
        batch_size=2,
        steps=3,
        eval_batch_size=2,
    )


@pytest.fixture
def backbone() -> Callable[..., TimmViT]:
    """Build a small backbone with noise on every weight: `backbone(dense_options, patch_size=8, ...)`."""

    def build(options: DenseOptions | None = None, seed: int = 0, **facts: Any) -> TimmViT:
        values = {"embed_dim": 24, "depth": 4, "num_heads": 2, "patch_size": 8, "mlp_dim": 48, "image_size": (32, 32)}
        arch = VitArch(**{**values, **facts})
        net = vit.assemble(arch, vit.spec_of(arch), initial_weights(arch, seed), options)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(5)
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return net.eval()

    return build


@pytest.fixture
def source(backbone: Callable[..., TimmViT]) -> Any:
    """What the task asks of a `Source`: a spec, a digest, and fresh backbones."""
    return SimpleNamespace(
        name="tiny", spec=backbone().spec, sha256="0" * 64, build=lambda options=None, seed=0: backbone(options, seed)
    )


@pytest.fixture
def make_coco(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO folder: `make_coco(masks="polygon" | "rle" | None, train=4, val=3, size=(64, 64))`."""

    def write(
        masks: str | None = "polygon", train: int = 4, val: int = 3, size: tuple[int, int] = (SIDE, SIDE), name: str = "coco"
    ) -> Path:
        root = tmp_path / name
        (root / "annotations").mkdir(parents=True)
        for which, count in (("train", train), ("val", val)):
            (root / which).mkdir()
            content = _draw(root / which, count, masks, size, seed=len(which))
            (root / "annotations" / f"instances_{which}.json").write_text(json.dumps(content))
        return root

    return write


@pytest.fixture
def splits(make_coco: Callable[..., Path]) -> Callable[..., tuple[coco.CocoSplit, coco.CocoSplit]]:
    """The same, read: `train, val = splits(masks="rle")`."""

    def read(**options: Any) -> tuple[coco.CocoSplit, coco.CocoSplit]:
        root = make_coco(**options)
        return coco.load(root, "train"), coco.load(root, "val")

    return read


def _draw(folder: Path, count: int, masks: str | None, size: tuple[int, int], seed: int) -> dict[str, Any]:
    """Two rectangles an image, one of each category, and a last image without any."""
    random = np.random.default_rng(seed)
    width, height = size
    images, annotations = [], []
    for number in range(1, count + 1):
        name = f"{number}.png"
        images.append({"id": 10 * number, "file_name": name, "width": width, "height": height})
        pixels = random.integers(90, 130, (height, width, 3), dtype=np.uint8)
        for place, category in enumerate(COLOURS) if number < count or count == 1 else ():
            w, h = int(random.integers(12, width // 2 - 4)), int(random.integers(12, height - 4))
            x, y = place * width // 2 + int(random.integers(0, width // 2 - w)), int(random.integers(0, height - h))
            pixels[y : y + h, x : x + w] = COLOURS[category]
            box = {"image_id": 10 * number, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **box, **_mask(box["bbox"], masks, size)})
        Image.fromarray(pixels).save(folder / name)
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def _mask(box: list[int], kind: str | None, size: tuple[int, int]) -> dict[str, Any]:
    x, y, w, h = box
    if kind is None:
        return {}
    if kind == "polygon":
        return {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
    bitmap = np.zeros((size[1], size[0]), np.uint8)
    bitmap[y : y + h, x : x + w] = 1
    edges = np.flatnonzero(np.diff(bitmap.ravel(order="F"), prepend=0)).tolist()
    runs = np.diff([0, *edges, bitmap.size]).tolist()
    return {"segmentation": {"size": [size[1], size[0]], "counts": runs}}


@pytest.fixture
def perfect() -> Callable[[coco.CocoSplit], dict[int, list[dict[str, Any]]]]:
    """Detections that are the truth, with class numbers as `predict` gives them."""

    def guess(split: coco.CocoSplit) -> dict[int, list[dict[str, Any]]]:
        from tasks.edges.detection_data import objects
        from tasks.edges.detection_pictures import bitmap

        found: dict[int, list[dict[str, Any]]] = {}
        for number, image in enumerate(split.images):
            found[image["id"]] = []
            for truth in objects(split, image["id"]):
                label = split.category_ids.index(truth["category_id"])
                one = {"image_id": image["id"], "category_id": label, "bbox": truth["bbox"], "score": 0.9}
                if split.has_masks:
                    one["segmentation"] = _encode(bitmap(truth, split.image(number).size))
                found[image["id"]].append(one)
        return found

    return guess


def _encode(shape: np.ndarray) -> dict[str, Any]:
    from pycocotools import mask

    encoded: Any = mask.encode(np.asfortranarray(shape))
    return {**encoded, "counts": encoded["counts"].decode()}
