"""An ADE20K-like split through mmsegmentation's transforms: decoded by the suite, changed and packed by mmseg."""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import spread
from tasks.edges.segmentation_mmseg import TRANSFORMS, BaseTransform
from tasks.edges.segmentation_model import IGNORE
from tasks.images import DAMAGED

if TYPE_CHECKING:
    from tasks.data.ade20k import AdeSplit
    from tasks.suite.segmentation import Config

Step = dict[str, Any]
"""Config of one transform of mmseg."""

MAPS_COUNTED = 500
"""Label maps that are read at most to count the pixels of the classes."""

LONGEST = 4
"""Longest side that an image is resized to, in shorter sides (mmseg `_base_/datasets/ade20k.py`: 2048 to 512)."""


class SegmentationData:
    """Packed samples of a split by number, in the place of mmseg's `BaseSegDataset`."""

    def __init__(self, split: "AdeSplit", pipeline: list[Step]) -> None:
        self.split = split
        self._transforms = [TRANSFORMS.build(step) for step in pipeline]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`inputs`, the image as BGR bytes (3, H, W), and `data_samples`, its `SegDataSample`."""
        image, labels = self.split.pairs[index]
        results: dict[str, Any] = {
            "split": self.split,
            "index": index,
            "img_path": str(image),
            "seg_map_path": str(labels),
            "reduce_zero_label": self.split.reduce_zero_label,
            "seg_fields": [],
        }
        for transform in self._transforms:
            results = transform(results)
        return results


@TRANSFORMS.register_module()
class MaeBenchLoadImage(BaseTransform):
    """Decode the image with the suite's reader, as BGR: that is what mmseg's transforms and its preprocessor take."""

    def __init__(self, aspect: float) -> None:
        """Take the aspect ratio beyond which the shorter side would vanish when resized."""
        self.aspect = aspect

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `img` (H, W, 3) and its sizes."""
        image = np.asarray(results["split"].image(results["index"]))[..., ::-1]
        height, width = image.shape[:2]
        if max(height, width) > self.aspect * min(height, width):
            raise InputError(f"{results['img_path']} of {width} x {height} pixels is too thin to be resized; remove it")
        return results | {"img": np.ascontiguousarray(image), "img_shape": (height, width), "ori_shape": (height, width)}


@TRANSFORMS.register_module()
class MaeBenchLoadLabels(BaseTransform):
    """Decode the label map with Pillow; numbers become those of the network, with 255 for what is ignored."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `gt_seg_map` (H, W) of bytes."""
        split = results["split"]
        labels = network_labels(read_labels(results["seg_map_path"]), reduce_zero_label=split.reduce_zero_label)
        if labels.shape != results["ori_shape"]:
            height, width = labels.shape
            raise InputError(f"{results['seg_map_path']}: a label map of {width} x {height} for an image of another size")
        found = np.unique(labels)
        if np.any((found >= len(split.classes)) & (found != IGNORE)):
            raise InputError(f"{results['seg_map_path']}: labels beyond the {len(split.classes)} classes: {found.tolist()}")
        results["seg_fields"].append("gt_seg_map")
        return results | {"gt_seg_map": labels}


def read_labels(path: str) -> np.ndarray:
    """The numbers stored in a label map, (H, W); a palette is only its colouring.

    Raises:
        InputError: the file is missing, damaged or not made of 8-bit numbers.
    """
    try:
        with Image.open(path) as label_map:
            label_map.load()
            mode, labels = label_map.mode, np.asarray(label_map)
    except DAMAGED as error:
        raise InputError(f"cannot decode label map {path}: {error}; replace it") from error
    if mode not in ("L", "P"):
        raise InputError(f"label map {path} has mode {mode} in place of 8-bit numbers; write class numbers, not colours")
    return labels


def network_labels(stored: np.ndarray, *, reduce_zero_label: bool) -> np.ndarray:
    """Labels as the network counts them: with `reduce_zero_label` 0 is ignored and 1 becomes 0; 255 is always ignored."""
    if not reduce_zero_label:
        return stored.astype(np.uint8)
    return np.where((stored == 0) | (stored == IGNORE), IGNORE, stored.astype(np.int16) - 1).astype(np.uint8)


def class_weights(split: "AdeSplit", power: float) -> list[float] | None:
    """Weights of the classes in the loss: pixel frequency to the power of `-power`, one on the average over pixels.

    A class without a pixel in the maps that are read, evenly spaced ones, has the largest weight of the others.
    """
    if not power:
        return None
    counts = np.zeros(IGNORE + 1, np.int64)
    for _, labels in spread(split.pairs, MAPS_COUNTED):
        found = network_labels(read_labels(str(labels)), reduce_zero_label=split.reduce_zero_label)
        counts += np.bincount(found.ravel(), minlength=len(counts))
    counted = counts[: len(split.classes)]
    if not counted.any():
        return None
    share = counted / counted.sum()
    weights = np.where(share > 0, share, share[share > 0].min()) ** -power
    return (weights / (share * weights).sum()).tolist()


def resize_scale(config: "Config", side: int) -> tuple[int, int]:
    """Longer and shorter side that an image is resized into, in pixels; `side` is that of the crops."""
    short = config.short_side or side
    return LONGEST * short, short


def train_pipeline(config: "Config", side: int) -> list[Step]:
    """Training transforms of mmseg (`_base_/datasets/ade20k.py`) for crops of a side in pixels."""
    photometric: list[Step] = [{"type": "PhotoMetricDistortion"}] if config.photometric else []
    scale = resize_scale(config, side)
    return [
        {"type": "MaeBenchLoadImage", "aspect": scale[0] * config.resize_ratio[0]},
        {"type": "MaeBenchLoadLabels"},
        {"type": "RandomResize", "scale": scale, "ratio_range": config.resize_ratio, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (side, side), "cat_max_ratio": config.cat_max_ratio, "ignore_index": IGNORE},
        {"type": "RandomFlip", "prob": config.flip},
        *photometric,
        {"type": "PackSegInputs"},
    ]


def test_pipeline(config: "Config", side: int) -> list[Step]:
    """Test transforms of mmseg; labels are loaded after resizing: predictions are brought back to their size."""
    scale = resize_scale(config, side)
    return [
        {"type": "MaeBenchLoadImage", "aspect": scale[0]},
        {"type": "Resize", "scale": scale, "keep_ratio": True},
        {"type": "MaeBenchLoadLabels"},
        {"type": "PackSegInputs"},
    ]


def collate(samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A batch as mmseg's preprocessor takes it: images of any sizes side by side, which it pads and stacks."""
    return {name: [sample[name] for sample in samples] for name in ("inputs", "data_samples")}
