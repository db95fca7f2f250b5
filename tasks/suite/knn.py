"""k-nearest-neighbour classification of frozen features, weighted as in DINO (arXiv 2104.14294)."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from tasks.common.accuracy import ACCURACIES
from tasks.common.settings import Pooled
from tasks.contract import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from backbones.source import Source
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
DINO_K = (10, 20, 100, 200)
METRICS = (*ACCURACIES, *(Metric(f"{metric.name}_k{k}") for k in DINO_K for metric in ACCURACIES))
SELECTION = "nothing is trained or chosen"
VERSION = 2

CHUNK_BYTES = 2**28
"""Similarities held at a time; results do not depend on it."""


class Config(Pooled):
    """Settings of the classifier; the class token is DINO's feature, and MAE trains the patch tokens."""

    k: int = Field(default=20, ge=1)
    """Neighbours that vote (dino `eval_knn.py`: 10, 20, 100, 200; 20 is usually best)."""
    also_k: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Further numbers of neighbours, reported as `top1_k10` and so on; they cost next to nothing."""
    temperature: float = Field(default=0.07, gt=0)
    """A vote weighs exp(cosine similarity / temperature) (dino `eval_knn.py`)."""
    search: Literal["exact", "faiss"] = "exact"
    """Who finds the neighbours: torch on the run's device, or faiss on the CPU, which has to be installed. Both are exact."""


RECIPES = {
    "paper": Config(also_k=(10, 100, 200)),
    "mean": Config(pool="mean", also_k=(10, 100, 200)),  # by the feature that MAE trains
    # The embedded digits fill their pictures, so nothing is cropped away; the mean of the patches is what MAE trains.
    "demo": Config(pool="mean", crop_ratio=1.0),
}

ABOUT = {
    "paper": "class token, 20 nearest by cosine similarity, temperature 0.07; 10, 100 and 200 beside it (dino eval_knn.py)",
    "mean": "the same by the mean of the patch tokens, which MAE trains (own choice)",
    "demo": "mean of the patch tokens, nothing cropped away, for the embedded digits (own choice)",
}
"""What tells the recipes apart, and where each comes from."""


def deviations(recipe: str, config: Config, source: "Source", run: Run) -> tuple[str, ...]:
    """What a record says beside the number; see `tasks.contract.Task`."""
    from tasks.common.deviations import no_final_norm

    return no_final_norm(source)


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Classify the images of `val` by their nearest neighbours in `train`; see `tasks.contract.Task.evaluate`."""
    from tasks.common.accuracy import accuracy
    from tasks.common.bank import banks

    most = max(config.k, *config.also_k, 1)
    if most > (images := len(data.split("train"))):
        setting = "knn.k" if most == config.k else "knn.also_k"
        raise ConfigError(f"{setting}={most} neighbours of {images} training images; lower {setting}")
    bank, queries = banks(source, data, config, run)
    weights, classes = neighbours(
        bank.features.to(run.device), bank.classes.to(run.device), queries.features.to(run.device), k=most, search=config.search
    )
    found: dict[str, float] = {}
    for k in dict.fromkeys((config.k, *config.also_k)):
        best = vote(weights[:, :k], classes[:, :k], len(data.classes), temperature=config.temperature)
        scores = accuracy(best, queries.classes.to(run.device), len(data.classes), run.out if k == config.k else None)
        found |= scores if k == config.k else {f"{name}_k{k}": value for name, value in scores.items()}
    return found


def neighbours(
    bank: "Tensor", classes: "Tensor", queries: "Tensor", *, k: int, search: Literal["exact", "faiss"] = "exact"
) -> tuple["Tensor", "Tensor"]:
    """Find the nearest features of each query by cosine similarity.

    Args:
        bank: features (N, C) of known class; normalised in place.
        classes: (N,) of the bank, from 0.
        queries: features (Q, C); normalised in place.
        k: neighbours wanted.
        search: torch, or faiss.

    Returns:
        Similarities and classes of the neighbours, both (Q, k), from the nearest on.

    Raises:
        EnvironmentFault: faiss is asked for and not installed.
    """
    import torch

    from tasks.common.nearest import by_faiss, by_torch

    for features in (bank, queries):
        features.div_(features.norm(dim=1, keepdim=True).clamp_min_(torch.finfo(features.dtype).eps))
    find = by_faiss if search == "faiss" else by_torch
    found = [find(bank, chunk, k) for chunk in queries.split(max(1, CHUNK_BYTES // (4 * len(bank))))]
    similarity, numbers = (torch.cat(parts) for parts in zip(*found, strict=True))
    return similarity, classes[numbers]


def vote(similarity: "Tensor", classes: "Tensor", num_classes: int, *, temperature: float) -> "Tensor":
    """Rank the classes of each query by the sum of their neighbours' weights.

    Args:
        similarity: of the neighbours, (Q, k).
        classes: of the neighbours, (Q, k).
        num_classes: of the data set.
        temperature: a neighbour weighs exp(similarity / temperature).

    Returns:
        The best classes from the best on, (Q, up to 5); -1 where no neighbour has another class.
    """
    import torch

    from tasks.common.accuracy import PLACES

    votes = torch.zeros(len(similarity), num_classes, dtype=torch.float64, device=similarity.device)
    votes.scatter_add_(1, classes, (similarity.double() / temperature).exp())
    weight, best = votes.topk(min(PLACES, num_classes), dim=1)
    return best.masked_fill(weight <= 0, -1)
