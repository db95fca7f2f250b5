"""Linear probe as MAE runs it: LARS on a frozen class token behind a batch norm (arXiv 2111.06377, A.1)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mae_bench.core.config import Config as Base
from mae_bench.core.run import Run
from tasks.contract import Metric

if TYPE_CHECKING:
    from torch import nn

    from backbones.source import Source
    from mae_bench.core.batches import MapData
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = (Metric("top1"),)
SELECTION = "last epoch"


_SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")


class Config(Base):
    """Settings of the probe."""

    epochs: int = Field(default=90, ge=1)
    """Passes over the training images (Table 10)."""
    warmup_epochs: int = Field(default=10, ge=0)
    """Linear warm-up (Table 10)."""
    batch_size: int = Field(default=16384, ge=1)
    """Effective batch (Table 10)."""
    base_lr: float = Field(default=0.1, gt=0)
    """At a batch of 256 (Table 10)."""
    optimizer: Literal["lars", "sgd", "adamw"] = "lars"
    """Momentum 0.9, no weight decay (Table 10)."""
    pool: Literal["cls", "mean"] = "cls"
    """Feature of an image, after the final norm (mae FINETUNE.md, `--cls_token`)."""
    cached: bool = False
    """Train on features of the evaluation crop, computed once: far cheaper, and a protocol of its own."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of the random resized crop (mae `main_linprobe.py`); not used when cached."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip; not used when cached."""
    image_size: int | None = Field(default=None, ge=1)
    """Side of the square input in pixels; None takes the size the backbone was made for."""
    crop_ratio: float = Field(default=0.875, gt=0, le=1)
    """Of the evaluation: resize 256, centre crop 224."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of one step in each process."""


RECIPES = {
    "paper": Config(),
    "demo": Config(epochs=60, warmup_epochs=6, batch_size=256, base_lr=30.0, pool="mean", cached=True, crop_ratio=1.0),
}


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Train the probe on `train` and count what it gets right on `val`; see `tasks.contract.Task.evaluate`."""
    probe = _cached if config.cached else _augmented
    return {"top1": probe(source, data, config, run)}


def _cached(source: "Source", data: "DataHandle", config: Config, run: Run) -> float:
    """Probe features that are extracted once."""
    from torch.utils.data import TensorDataset, default_collate

    from tasks.common.classifiers import Probe
    from tasks.common.features import extract
    from tasks.common.images import split_of
    from tasks.common.sizes import input_size
    from tasks.common.train import seeded, training_key

    backbone = source.build()
    size = input_size(backbone.spec, config.image_size)
    (features, labels), (queries, truth) = (
        extract(
            backbone,
            split_of(data, which),
            config.pool,
            size=size,
            crop_ratio=config.crop_ratio,
            run=run,
            title=f"features of {which}",
        )
        for which in _SPLITS
    )
    probe = seeded(lambda: Probe(features.shape[1], len(data.classes)), run)
    _train(probe, TensorDataset(features, labels), default_collate, config, run, training_key(source, data, config, run))
    return 100 * float((probe.eval().cpu().logits(queries).argmax(1) == truth).double().mean())


def _augmented(source: "Source", data: "DataHandle", config: Config, run: Run) -> float:
    """Probe random crops, each of which the frozen backbone sees anew, as the paper does."""
    from tasks.common.classifiers import FrozenProbe
    from tasks.common.features import top1
    from tasks.common.images import Labelled, split_of, stack, training_transform
    from tasks.common.sizes import input_size
    from tasks.common.train import seeded, training_key

    backbone = source.build()
    size = input_size(backbone.spec, config.image_size)
    probe = seeded(lambda: FrozenProbe(backbone, config.pool, len(data.classes), run.device), run)
    crops = Labelled(split_of(data, "train"), training_transform(size, config.crop_scale, config.flip))
    _train(probe, crops, stack, config, run, training_key(source, data, config, run))
    return top1(probe, probe.logits, split_of(data, "val"), size=size, crop_ratio=config.crop_ratio, run=run)


def _train(
    model: "nn.Module", dataset: "MapData", collate: Callable[[list[Any]], Any], config: Config, run: Run, key: str
) -> None:
    from mae_bench.core.batches import Order
    from mae_bench.core.engine import Training, train
    from mae_bench.core.optim import OptimConfig, scaled_lr
    from tasks.common.train import epoch_schedule

    batch = min(config.batch_size, len(dataset))  # the published batch is larger than many data sets; the rate follows
    steps, schedule = epoch_schedule(Order(len(dataset), batch, run.seed), config.epochs, config.warmup_epochs)
    train(
        Training(
            model=model,
            dataset=dataset,
            collate=collate,
            optim=OptimConfig(name=config.optimizer, lr=scaled_lr(config.base_lr, batch)),
            schedule=schedule,
            batch_size=batch,
            steps=steps,
            accumulate=config.accumulate,
            key=key,
            title="linear probe",
        ),
        run,
    )
