"""k-nearest-neighbour classification of frozen features, weighted as in DINO (arXiv 2104.14294)."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mae_bench.core.config import Config as Base
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from tasks.contract import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from backbones.source import Source
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = (Metric("top1"),)
SELECTION = "nothing is trained or chosen"

CHUNK = 1024
"""Queries compared with the whole bank at a time; results do not depend on it."""


class Config(Base):
    """Settings of the classifier."""

    k: int = Field(default=20, ge=1)
    """Neighbours that vote (dino `eval_knn.py`: 10, 20, 100, 200; 20 is usually best)."""
    temperature: float = Field(default=0.07, gt=0)
    """A vote weighs exp(cosine similarity / temperature) (dino `eval_knn.py`)."""
    pool: Literal["cls", "mean"] = "cls"
    """Feature of an image, after the final norm (dino: class token)."""
    image_size: int | None = Field(default=None, ge=1)
    """Side of the square input in pixels; None takes the size the backbone was made for."""
    crop_ratio: float = Field(default=0.875, gt=0, le=1)
    """Resize 256, centre crop 224 (dino `eval_knn.py`)."""


RECIPES = {
    "paper": Config(),
    # The embedded digits fill their pictures, so nothing is cropped away; the mean of the patches is what MAE trains.
    "demo": Config(pool="mean", crop_ratio=1.0),
}


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Classify the images of `val` by their nearest neighbours in `train`; see `tasks.contract.Task.evaluate`."""
    from tasks.common.features import extract
    from tasks.common.images import split_of
    from tasks.common.sizes import input_size

    train, val = split_of(data, "train"), split_of(data, "val")
    if config.k > len(train):
        raise ConfigError(f"knn.k={config.k} neighbours of {len(train)} training images; lower knn.k")
    backbone = source.build()
    size = input_size(backbone.spec, config.image_size)
    extracted = [
        extract(backbone, split, config.pool, size=size, crop_ratio=config.crop_ratio, run=run, title=title)
        for split, title in ((train, "features of train"), (val, "features of val"))
    ]
    (bank, classes), (queries, truth) = extracted
    found = vote(bank, classes, queries, k=config.k, temperature=config.temperature)
    return {"top1": 100 * float((found == truth).double().mean())}


def vote(bank: "Tensor", classes: "Tensor", queries: "Tensor", *, k: int, temperature: float) -> "Tensor":
    """Give each query the class with the largest sum of its neighbours' weights.

    Args:
        bank: features (N, C) of known class; both sides are L2-normalised here.
        classes: (N,) of the bank, from 0.
        queries: features (Q, C).
        k: neighbours that vote.
        temperature: of the weights.

    Returns:
        Classes (Q,).
    """
    import torch
    from torch.nn.functional import normalize

    bank, queries = normalize(bank, dim=1), normalize(queries, dim=1)
    found = []
    for chunk in queries.split(CHUNK):
        similarity, nearest = (chunk @ bank.T).topk(k, dim=1)
        votes = torch.zeros(len(chunk), int(classes.max()) + 1, dtype=torch.float64)
        votes.scatter_add_(1, classes[nearest], (similarity / temperature).double().exp())
        found.append(votes.argmax(1))
    return torch.cat(found)
