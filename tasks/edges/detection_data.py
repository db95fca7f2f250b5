"""COCO data as Detectron2 takes it: its transforms, its instances; files are decoded by the suite."""

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.structures import BoxMode
from pycocotools import mask as rle

from mae_bench.core.errors import ConfigError, InputError
from tasks.images import read_rgb

if TYPE_CHECKING:
    from tasks.data.coco import CocoSplit
    from tasks.suite.detection import Config

Sample = dict[str, Any]


class ResizeScale(T.ResizeScale):
    """Detectron2's, with at least one pixel a side: a long thin image scaled down far has none, and the resize fails."""

    def get_transform(self, image: np.ndarray) -> Any:
        """Draw a scale."""
        return _at_least_a_pixel(super().get_transform(image))


class ResizeShortestEdge(T.ResizeShortestEdge):
    """The same for evaluation."""

    def get_transform(self, image: np.ndarray) -> Any:
        """Fit the shorter side to the size, or the longer one to the largest size."""
        return _at_least_a_pixel(super().get_transform(image))


class Images:
    """Images of a split by number, resized for the detector; what training and evaluation have in common."""

    def __init__(self, split: "CocoSplit", augmentations: list[T.Augmentation]) -> None:
        self.split = split
        self.numbers = list(range(len(split)))
        self.augmentations = T.AugmentationList(augmentations)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        """The image as Detectron2's models take it, without annotations.

        Raises:
            InputError: the file cannot be decoded, or has another size than the annotations say.
        """
        return self.load(index)[0]

    def load(self, index: int) -> tuple[Sample, T.TransformList]:
        """The same, with the transforms that were made."""
        number = self.numbers[index]
        stated, path = self.split.images[number], self.split.path(number)
        # The orientation tag turns the picture, as in Detectron2's own reader.
        pixels = np.asarray(read_rgb(path, exif=True))
        height, width = pixels.shape[:2]
        if (width, height) != (stated["width"], stated["height"]):
            claim = f"{self.split.json_path.name} says {stated['width']} x {stated['height']}"
            raise InputError(f"{path} is {width} x {height} pixels, but {claim}; correct one of them")
        view = T.AugInput(pixels)
        made = self.augmentations(view)
        # (3, H, W), 0..255
        tensor = torch.as_tensor(np.ascontiguousarray(np.moveaxis(np.asarray(view.image), 2, 0)))
        return {"image": tensor, "image_id": stated["id"], "height": height, "width": width}, made


class TrainImages(Images):
    """Images with their instances, after random scaling, cropping and flipping.

    Images without an object that is no crowd are left out, as Detectron2 leaves them out of training.
    """

    def __init__(self, split: "CocoSplit", config: "Config", *, masks: bool) -> None:
        super().__init__(split, train_augmentations(config))
        self.masks = masks
        self.classes = {category: label for label, category in enumerate(split.category_ids)}
        kept = [number for number, image in enumerate(split.images) if objects(split, image["id"])]
        self.numbers = repeated(split, kept, config.repeat_threshold) if config.repeat_threshold else kept
        self.mask_format = mask_format(split) if masks else "bitmask"

    def __getitem__(self, index: int) -> Sample:
        """One training sample; its randomness comes from NumPy's global generator."""
        sample, made = self.load(index)
        size = (sample["image"].shape[1], sample["image"].shape[2])
        moved = [self._moved(truth, made, size) for truth in objects(self.split, sample["image_id"])]
        instances = detection_utils.annotations_to_instances(moved, size, mask_format=self.mask_format)
        if self.masks:
            # A cropped object's box is that of its visible part, tighter than the cropped box.
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        sample["instances"] = detection_utils.filter_empty_instances(instances)
        return sample

    def _moved(self, truth: dict[str, Any], made: T.TransformList, size: tuple[int, int]) -> dict[str, Any]:
        """One object in Detectron2's format, after the transforms of its image; `size` is the new (height, width)."""
        found = {"bbox": list(truth["bbox"]), "bbox_mode": BoxMode.XYWH_ABS, "category_id": self.classes[truth["category_id"]]}
        if self.masks:
            found["segmentation"] = segmentation(truth)
        moved = detection_utils.transform_instance_annotations(found, made, size)
        if isinstance(moved.get("segmentation"), np.ndarray):
            moved["segmentation"] = np.array(moved["segmentation"])  # Pillow's arrays cannot be written to, and torch warns
        return moved


REPEAT_EPOCHS = 16
"""Epochs that repeat factors are spread over, so that an image of factor 1.25 comes 20 times."""


def repeated(split: "CocoSplit", numbers: list[int], threshold: float) -> list[int]:
    """Numbers of images, those with rare classes more often, by Detectron2's repeat factors (arXiv 1908.03195, B.2)."""
    known = [{"annotations": objects(split, split.images[number]["id"])} for number in numbers]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(known, threshold)
    if bool((factors == 1).all()):
        return numbers
    times = (factors * REPEAT_EPOCHS).round().int().tolist()
    return [number for number, count in zip(numbers, times, strict=True) for _ in range(count)]


def class_weights(split: "CocoSplit", power: float) -> torch.Tensor:
    """Weight of each class in the draw of the federated loss, (classes,): the number of images that have it, to a power."""
    with_class = Counter(
        category for image in split.images for category in {truth["category_id"] for truth in objects(split, image["id"])}
    )
    # A class without images can be drawn like one with a single image: the draw needs as many classes as it is to give.
    return torch.tensor([float(max(with_class[category], 1)) for category in split.category_ids]) ** power


def train_augmentations(config: "Config") -> list[T.Augmentation]:
    """Flip, large-scale jitter and crop, in ViTDet's order; the model pads what is smaller than the crop."""
    side = config.image_size
    return [
        *([T.RandomFlip(prob=config.flip, horizontal=True)] if config.flip else []),
        ResizeScale(*config.scale, target_height=side, target_width=side),
        T.FixedSizeCrop(crop_size=(side, side), pad=False),  # type: ignore[arg-type]  # its annotation says one number
    ]


def eval_images(split: "CocoSplit", config: "Config") -> Images:
    """Images whose longer side is `image_size`."""
    side = config.image_size
    return Images(split, [ResizeShortestEdge(short_edge_length=side, max_size=side)])


def use_masks(config: "Config", *splits: "CocoSplit") -> bool:
    """Whether masks are learned and measured: as set, or if all splits have them.

    Raises:
        ConfigError: masks are asked for and there are none.
    """
    without = [split.json_path for split in splits if not split.has_masks]
    if config.masks and without:
        raise ConfigError(f"detection: masks=True, but {without[0]} has no masks; set detection.masks=False")
    return not without if config.masks is None else config.masks


def mask_format(split: "CocoSplit") -> str:
    """Detectron2's word for the masks of a split: polygons stay so, as for COCO; a single run-length mask makes all bitmaps."""
    found = (truth["segmentation"] for image in split.images for truth in objects(split, image["id"]))
    return "polygon" if all(isinstance(mask, list) for mask in found) else "bitmask"


def objects(split: "CocoSplit", image_id: int) -> list[dict[str, Any]]:
    """Annotations of an image without its crowd regions, which neither training nor evaluation asks to find."""
    return [truth for truth in split.annotations[image_id] if not truth["iscrowd"]]


def segmentation(truth: dict[str, Any]) -> Any:
    """A copy of the polygons, or a compressed run-length mask; lists of counts, which COCO also has, Detectron2 does not take."""
    found: Any = truth["segmentation"]
    if isinstance(found, list):
        return copy.deepcopy(found)
    return rle.frPyObjects(found, *found["size"]) if isinstance(found["counts"], list) else found


def _at_least_a_pixel(resize: Any) -> Any:
    if isinstance(resize, T.NoOpTransform) or min(resize.new_h, resize.new_w) >= 1:
        return resize
    return T.ResizeTransform(resize.h, resize.w, max(1, resize.new_h), max(1, resize.new_w), resize.interp)
