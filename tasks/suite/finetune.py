"""End-to-end fine-tuning as MAE runs it (arXiv 2111.06377, A.1; mae FINETUNE.md)."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mae_bench.core.config import Config as Base
from mae_bench.core.run import Run
from tasks.contract import Metric

if TYPE_CHECKING:
    from backbones.source import Source
    from mae_bench.core.engine import Training
    from tasks.common.classifiers import FineTuned
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = (Metric("top1"),)
SELECTION = "last epoch"


class Config(Base):
    """Settings of the training; the defaults are ViT-B's of the released code, which reproduces (mae FINETUNE.md)."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the training images; 50 for ViT-L and ViT-H."""
    warmup_epochs: int = Field(default=5, ge=0)
    batch_size: int = Field(default=1024, ge=1)
    """Effective batch."""
    base_lr: float = Field(default=5e-4, gt=0)
    """At a batch of 256; 1e-3 for ViT-L and ViT-H."""
    min_lr: float = Field(default=1e-6, ge=0)
    """Where the cosine ends (mae `main_finetune.py`)."""
    weight_decay: float = Field(default=0.05, ge=0)
    layer_decay: float = Field(default=0.65, gt=0, le=1)
    """0.75 for ViT-L and ViT-H."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """0.2 for ViT-L, 0.3 for ViT-H."""
    pool: Literal["cls", "mean"] = "mean"
    """Global average pooling of the patch tokens, with a norm of its own."""
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Label smoothing."""
    mixup: float = Field(default=0.8, ge=0)
    cutmix: float = Field(default=1.0, ge=0)
    """Strengths of mixup and cutmix; with both 0 nothing is mixed."""
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    """RandAugment in timm's notation; empty for none."""
    random_erasing: float = Field(default=0.25, ge=0, le=1)
    """Probability of erasing a rectangle by noise, pixel by pixel."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of the random resized crop (timm's default, which the released code uses)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    image_size: int | None = Field(default=None, ge=1)
    """Side of the square input in pixels; None takes the size the backbone was made for."""
    crop_ratio: float = Field(default=0.875, gt=0, le=1)
    """Of the evaluation: resize 256, centre crop 224."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of one step in each process."""


RECIPES = {
    "paper": Config(),
    "paper-large": Config(epochs=50, base_lr=1e-3, layer_decay=0.75, drop_path=0.2),
    "paper-huge": Config(epochs=50, base_lr=1e-3, layer_decay=0.75, drop_path=0.3),
    # A short training, so that what the backbone brings decides; mixing and mirroring would spoil the embedded digits.
    "demo": Config(
        epochs=2,
        warmup_epochs=0,
        batch_size=32,
        base_lr=8e-3,
        layer_decay=0.9,
        drop_path=0.0,
        smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
        rand_augment="",
        random_erasing=0.0,
        crop_scale=(0.7, 1.0),
        flip=0.0,
        crop_ratio=1.0,
    ),
}


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Fine-tune on `train` and count what is right on `val`; see `tasks.contract.Task.evaluate`."""
    from mae_bench.core.engine import train
    from tasks.common.features import top1
    from tasks.common.images import split_of
    from tasks.common.sizes import input_size
    from tasks.common.train import training_key

    size = input_size(source.spec, config.image_size)
    model = build(source, len(data.classes), config, run, size)
    train(plan(model, data, config, run, size, training_key(source, data, config, run)), run)
    return {"top1": top1(model, model.logits, split_of(data, "val"), size=size, crop_ratio=config.crop_ratio, run=run)}


def build(source: "Source", num_classes: int, config: Config, run: Run, size: tuple[int, int]) -> "FineTuned":
    """The network to fine-tune, with a fresh head."""
    from backbones.contract import DenseOptions
    from tasks.common.classifiers import FineTuned, Regularise
    from tasks.common.train import seeded

    backbone = source.build(DenseOptions(image_size=size, drop_path=config.drop_path), seed=run.seed)
    regularise = Regularise(
        num_classes,
        smoothing=config.smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        erasing=config.random_erasing,
        device=run.device,
    )
    return seeded(lambda: FineTuned(backbone, num_classes, pool=config.pool, regularise=regularise), run)


def plan(model: "FineTuned", data: "DataHandle", config: Config, run: Run, size: tuple[int, int], key: str) -> "Training":
    """The training of the recipe."""
    from backbones.layers import layer_ids
    from mae_bench.core.batches import Order
    from mae_bench.core.engine import Training
    from mae_bench.core.optim import OptimConfig, scaled_lr
    from tasks.common.images import Labelled, finetune_transform, split_of, stack
    from tasks.common.train import epoch_schedule, no_decay

    mean = model.backbone.spec.mean
    transform = finetune_transform(size, config.crop_scale, config.flip, config.rand_augment, mean)
    images = Labelled(split_of(data, "train"), transform)
    batch = _batch_size(config, len(images))
    lr = scaled_lr(config.base_lr, batch)
    layer_id, depth = layer_ids(model)
    order = Order(len(images), batch, run.seed)
    steps, schedule = epoch_schedule(order, config.epochs, config.warmup_epochs, end=min(1.0, config.min_lr / lr))
    return Training(
        model=model,
        dataset=images,
        collate=stack,
        optim=OptimConfig(lr=lr, weight_decay=config.weight_decay, layer_decay=config.layer_decay),
        schedule=schedule,
        batch_size=batch,
        steps=steps,
        accumulate=config.accumulate,
        key=key,
        title="fine-tune",
        layer_id=layer_id,
        depth=depth,
        no_decay=no_decay,
    )


def _batch_size(config: Config, images: int) -> int:
    """The effective batch: the published one, or what a smaller data set has; mixing pairs images, so an even number."""
    batch = min(config.batch_size, images)
    return batch - batch % 2 if config.mixup > 0 or config.cutmix > 0 else batch
