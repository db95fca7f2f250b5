"""A split with label maps through mmsegmentation's transforms: decoded by the suite, changed and packed by mmseg."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mae_bench.core.errors import InputError
from tasks.data import spread
from tasks.data._label_maps import IGNORED
from tasks.edges.segmentation_mmseg import TRANSFORMS, BaseTransform

if TYPE_CHECKING:
    from tasks.data._label_maps import SegmentationSplit
    from tasks.suite.segmentation import Config

Step = dict[str, Any]
"""Config of one transform of mmseg."""

MAPS_COUNTED = 500
"""Label maps that are read at most to count the pixels of the classes."""

UNBOUNDED = 1e5
"""Aspect ratio that no image has."""

THINNEST = 50.0
"""Aspect ratio beyond which an image that is resized by its shorter side alone would fill the memory."""


class SegmentationData:
    """Packed samples of a split by number, in the place of mmseg's `BaseSegDataset`."""

    def __init__(self, split: "SegmentationSplit", pipeline: list[Step]) -> None:
        self.split = split
        self._transforms = [TRANSFORMS.build(step) for step in pipeline]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`inputs`, the image as BGR bytes (3, H, W), and `data_samples`, its `SegDataSample`."""
        return _apply(self._transforms, _start(self.split, index))


class TestViews:
    """The views of each image of a split that its prediction is averaged over, in mmseg's place of `TestTimeAug`."""

    __test__ = False  # no test of pytest's

    def __init__(self, split: "SegmentationSplit", first: list[Step], views: list[list[Step]]) -> None:
        """Take the transforms of an image, and those that follow for each view of it."""
        self.split = split
        self._first = [TRANSFORMS.build(step) for step in first]
        self._views = [[TRANSFORMS.build(step) for step in view] for view in views]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.split)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        """The packed samples of an image, one a view; see `SegmentationData`."""
        decoded = _apply(self._first, _start(self.split, index))
        return [_apply(view, dict(decoded)) for view in self._views]


def _start(split: "SegmentationSplit", index: int) -> dict[str, Any]:
    image, labels = split.pairs[index]
    return {"split": split, "index": index, "img_path": str(image), "seg_map_path": str(labels), "seg_fields": []}


def _apply(transforms: list[Any], results: dict[str, Any]) -> dict[str, Any]:
    for transform in transforms:
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
    """Decode the label map with Pillow; its numbers become those of the classes, with 255 for what is ignored."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `gt_seg_map` (H, W) of bytes."""
        labels = results["split"].labels(results["index"])
        if labels.shape != results["ori_shape"]:
            height, width = labels.shape
            raise InputError(f"{results['seg_map_path']}: a label map of {width} x {height} for an image of another size")
        return results | {"gt_seg_map": labels, "seg_fields": [*results["seg_fields"], "gt_seg_map"]}


def class_weights(split: "SegmentationSplit", power: float) -> list[float] | None:
    """Weights of the classes in the loss: pixel frequency to the power of `-power`, one on the average over pixels.

    A class without a pixel in the maps that are read, evenly spaced ones, has the largest weight of the others.
    """
    if not power:
        return None
    counts = np.zeros(IGNORED + 1, np.int64)
    for index in spread(list(range(len(split))), MAPS_COUNTED):
        counts += np.bincount(split.labels(index).ravel(), minlength=len(counts))
    counted = counts[: len(split.classes)]
    if not counted.any():
        return None
    share = counted / counted.sum()
    weights = np.where(share > 0, share, share[share > 0].min()) ** -power
    return (weights / (share * weights).sum()).tolist()


def resize_scale(config: "Config", short: float) -> tuple[int, int]:
    """Longer and shorter side in pixels that an image is resized into."""
    return round((config.aspect or UNBOUNDED) * short), round(short)


def train_pipeline(config: "Config", side: int) -> list[Step]:
    """Training transforms of mmseg (`_base_/datasets/ade20k.py`) for crops of a side in pixels."""
    photometric: list[Step] = [{"type": "PhotoMetricDistortion"}] if config.photometric else []
    scale = resize_scale(config, config.short_side or side)
    return [
        {"type": "MaeBenchLoadImage", "aspect": _thinnest(config, scale[0] * config.resize_ratio[0])},
        {"type": "MaeBenchLoadLabels"},
        {"type": "RandomResize", "scale": scale, "ratio_range": config.resize_ratio, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (side, side), "cat_max_ratio": config.cat_max_ratio, "ignore_index": IGNORED},
        {"type": "RandomFlip", "prob": config.flip},
        *photometric,
        {"type": "PackSegInputs"},
    ]


def test_pipeline(config: "Config", side: int) -> list[Step]:
    """Test transforms of mmseg; labels are loaded after resizing: predictions are brought back to their size."""
    first, views = test_views(config, side)
    return [*first, *views[0]]


def test_views(config: "Config", side: int) -> tuple[list[Step], list[list[Step]]]:
    """Transforms of an image, and those of each of its views: each of `test_scales`, and mirrored where `test_flip` says so."""
    short = config.short_side or side
    # Several scales never go below a window: mmseg 0.x had `min_size` in its multi-scale configs (configs/beit/*_ms.py).
    sides = [max(short * scale, side) if len(config.test_scales) > 1 else short * scale for scale in config.test_scales]
    scales = [resize_scale(config, one) for one in sides]
    load: Step = {"type": "MaeBenchLoadImage", "aspect": _thinnest(config, min(scale[0] for scale in scales))}
    flips: list[list[Step]] = [[], [{"type": "RandomFlip", "prob": 1.0, "direction": "horizontal"}]]
    return [load], [
        [{"type": "Resize", "scale": scale, "keep_ratio": True}, *flip, {"type": "MaeBenchLoadLabels"}, {"type": "PackSegInputs"}]
        for scale in scales
        for flip in flips[: 1 + config.test_flip]
    ]


def _thinnest(config: "Config", longest: float) -> float:
    """The aspect ratio that images may have: the shorter side keeps a pixel, or the longer one does not grow beyond sense."""
    return longest if config.aspect else THINNEST


def collate(samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A batch as mmseg's preprocessor takes it: images of any sizes side by side, which it pads and stacks."""
    return {name: [sample[name] for sample in samples] for name in ("inputs", "data_samples")}
