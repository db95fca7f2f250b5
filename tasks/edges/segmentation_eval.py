"""Predictions over a validation split and their mean intersection over union, by mmsegmentation's own metric."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from mae_bench.core.errors import InputError
from mae_bench.core.files import write_json
from mae_bench.core.run import Run
from mae_bench.core.samples import in_order
from results.names import PER_CLASS
from tasks.data._label_maps import IGNORED
from tasks.edges.segmentation_data import TestViews, collate
from tasks.edges.segmentation_mmseg import IoUMetric
from tasks.edges.segmentation_model import Segmenter

AREAS = ("intersect", "union", "predicted", "true")
"""Pixels of each class, as `IoUMetric.intersect_and_union` gives them."""


def predictions(model: Segmenter, data: TestViews, run: Run) -> Iterator[tuple[int, Any]]:
    """Predict this process's share of the images one by one, in eval mode and fp32, as `SegDataSample`s; tells the progress."""
    world, rank = _world()
    mine = range(rank, len(data), world)
    # One image a batch, whose views may differ in size.
    images = in_order(Subset(data, mine), _views, batch_size=1, workers=run.workers)  # type: ignore[arg-type]  # map-style data
    model.eval()
    run.reporter.start("evaluating segmentation", len(mine))
    for index, batch in zip(mine, images, strict=True):
        sample = model.predict_views(batch)
        run.reporter.advance()
        yield index, sample


def _views(images: list[list[dict[str, Any]]]) -> list[dict[str, list[Any]]]:
    """Each view of the one image of a batch as a batch of its own."""
    (views,) = images
    return [collate([view]) for view in views]


def areas(sample: Any, num_classes: int) -> Tensor:
    """Pixels of each class in one prediction, (4, classes) in the order of `AREAS`."""
    predicted = sample.pred_sem_seg.data.squeeze()
    true = sample.gt_sem_seg.data.squeeze().to(predicted)
    return torch.stack(IoUMetric.intersect_and_union(predicted, true, num_classes, IGNORED)).double()


def scores(total: Tensor) -> dict[str, np.ndarray]:
    """Give mmseg's `aAcc`, and `IoU` and `Acc` of each class (NaN where it neither occurs nor is predicted), from 0 to 1."""
    intersect, union, predicted, true = total
    return IoUMetric.total_area_to_metrics(intersect, union, predicted, true, ["mIoU"])


def summary(total: Tensor) -> dict[str, float]:
    """`mIoU`, `mAcc` and `aAcc` in percent, as mmseg's `IoUMetric` reports them but not rounded.

    Classes that are NaN are left out of the means, as mmseg does.

    Raises:
        InputError: no pixel of the validation split has a class.
    """
    if not float(total[AREAS.index("true")].sum()):
        raise InputError("no pixel of the validation labels has a class: all are ignored (0 or 255); check the label maps")
    found = scores(total)
    means = {"mIoU": np.nanmean(found["IoU"]), "mAcc": np.nanmean(found["Acc"]), "aAcc": found["aAcc"]}
    return {name: 100 * float(value) for name, value in means.items()}


def write_per_class(run: Run, total: Tensor, classes: tuple[str, ...]) -> None:
    """Leave `per_class.json`: IoU and accuracy in percent (null where undefined) and pixels of each class."""
    found = scores(total)
    rows = [
        {
            "class": name,
            "IoU": _percent(found["IoU"][index]),
            "Acc": _percent(found["Acc"][index]),
            **{f"pixels_{area}": int(total[row, index]) for row, area in enumerate(AREAS)},
        }
        for index, name in enumerate(classes)
    ]
    write_json(run.out / PER_CLASS, {"summary": summary(total), "classes": rows})


def sum_over_processes(total: Tensor, device: str) -> Tensor:
    """Add up what the processes of a distributed run have counted."""
    if _world()[0] == 1:
        return total
    everywhere = total.to(device)
    torch.distributed.all_reduce(everywhere)
    return everywhere.cpu()


def _percent(value: Any) -> float | None:
    return None if math.isnan(value) else 100 * float(value)


def _world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0
