"""End-to-end fine-tuning as MAE runs it (arXiv 2111.06377, A.1; mae FINETUNE.md)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from mae_bench.core.run import Run
from mae_bench.core.schedule import check_warmup
from mae_bench.core.values import RandAugment
from tasks.common.accuracy import ACCURACIES
from tasks.common.settings import Augmented, Sized

if TYPE_CHECKING:
    from backbones.source import Source
    from mae_bench.core.engine import Training
    from tasks.common.classifiers import FineTuned, Regularise
    from tasks.common.features import View
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = ACCURACIES
SELECTION = "last epoch"
VERSION = 2


class Config(Sized, Augmented):
    """Settings of the training; the defaults are ViT-B's of the released code, which reproduces (mae FINETUNE.md)."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the training images; 50 for ViT-L and ViT-H."""
    warmup_epochs: int = Field(default=5, ge=0)
    batch_size: int = Field(default=1024, ge=1)
    """Effective batch; the largest that a smaller data set fills. Where images are mixed, micro-batches are even."""
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
    """Mean of the patch tokens with a fresh norm (the released code's default), or the class token after the pretrained one."""
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Label smoothing."""
    mixup: float = Field(default=0.8, ge=0)
    cutmix: float = Field(default=1.0, ge=0)
    """Strengths of mixup and cutmix; with both 0 nothing is mixed."""
    rand_augment: RandAugment = "rand-m9-mstd0.5-inc1"
    """RandAugment in timm's notation; empty for none."""
    random_erasing: float = Field(default=0.25, ge=0, le=1)
    """Probability of erasing a rectangle by noise, pixel by pixel."""
    crop_ratio: float | None = Field(default=None, gt=0, le=1)
    """Of the evaluation's centre crop to the shorter side; None is 0.875 (resize 256, crop 224), and 1 for inputs above 224
    pixels (mae `util/datasets.py`)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_warmup("warmup_epochs", self.warmup_epochs, "epochs", self.epochs)
        return self


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

ABOUT = {
    "paper": "ViT-B: 100 epochs, base rate 5e-4, layer decay 0.65, drop path 0.1 (mae FINETUNE.md)",
    "paper-large": "ViT-L: 50 epochs, base rate 1e-3, layer decay 0.75, drop path 0.2 (mae FINETUNE.md)",
    "paper-huge": "ViT-H: the same with drop path 0.3 (mae FINETUNE.md)",
    "demo": "two epochs without mixing and erasing, for the embedded digits (own choice)",
}
"""What tells the recipes apart, and where each comes from."""

DEVIATIONS: tuple[str, ...] = (
    "one draw of mixup or cutmix is for a whole micro-batch of a process; in the published run for the 32 images of each of 32 "
    "processes (16 of 64 for ViT-H)",
    "values are those of the released code, which gives the published ViT-B number; Table 9 of the paper has base rate 1e-3, "
    "layer decay 0.75 and drop path 0.1 (B, L) or 0.2 (H)",
)
"""Where `paper` differs from the recipe it is named after; every record of it says so."""


def deviations(recipe: str, config: Config, source: "Source", run: Run) -> tuple[str, ...]:
    """What a record says beside the number; see `tasks.contract.Task`."""
    from tasks.common.deviations import no_final_norm, other_size

    return (*(no_final_norm(source) if config.pool == "cls" else ()), *other_size(source, recipe))


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Fine-tune on `train` and count what is right on `val`; see `tasks.contract.Task.evaluate`."""
    from tasks.common.classifiers import FineTuned

    return tune(source, data, config, run, FineTuned)


def tune(source: "Source", data: "DataHandle", config: Config, run: Run, kind: Callable[..., "FineTuned"]) -> dict[str, float]:
    """Train a classifier of some kind on images and measure it; what full and partial fine-tuning have in common."""
    from mae_bench.core.engine import train
    from tasks.common.features import View, measure
    from tasks.common.images import Labelled, split_of
    from tasks.common.readable import read_through
    from tasks.common.sizes import check_pool, crop_ratio, input_size
    from tasks.common.train import check_whole, training_key

    check_whole("fine-tuning", run)
    check_pool(source.spec, config.pool)
    size = input_size(source.spec, config.image_size)
    view = View(size, crop_ratio(size, config.crop_ratio), source.spec.interpolation)
    model = build(source, len(data.classes), config, run, size, kind)
    val = split_of(data, "val")
    read_through(Labelled(val, lambda image: None), run, "fine-tune")
    train(plan(model, data, config, run, view, training_key(source, data, config, run)), run)
    return measure(model, model.logits, val, view, run)


def build(
    source: "Source", num_classes: int, config: Config, run: Run, size: tuple[int, int], kind: Callable[..., "FineTuned"]
) -> "FineTuned":
    """The network to fine-tune, with a fresh head."""
    from backbones.contract import DenseOptions
    from tasks.common.train import seeded

    # mae `util/pos_embed.py`: bicubic without antialiasing.
    options = DenseOptions(image_size=size, antialias=False, drop_path=config.drop_path)
    backbone = source.build(options, seed=run.seed)
    return seeded(lambda: kind(backbone, num_classes, pool=config.pool, regularise=regulariser(num_classes, config, run)), run)


def regulariser(num_classes: int, config: Config, run: Run) -> "Regularise":
    """What is done to batches."""
    from tasks.common.classifiers import Regularise

    return Regularise(
        num_classes,
        smoothing=config.smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        erasing=config.random_erasing,
        device=run.device,
    )


def plan(model: "FineTuned", data: "DataHandle", config: Config, run: Run, view: "View", key: str) -> "Training":
    """The training of the recipe."""
    from backbones.layers import layer_ids
    from mae_bench.core.batches import Order
    from mae_bench.core.engine import Training
    from mae_bench.core.optim import OptimConfig, scaled_lr
    from tasks.common.images import Labelled, finetune_transform, split_of, stack
    from tasks.common.sizes import fitting_batch
    from tasks.common.train import epoch_schedule, no_decay

    mean = model.backbone.spec.mean
    transform = finetune_transform(view.size, config.crop_scale, config.flip, config.rand_augment, mean, view.interpolation)
    images = Labelled(split_of(data, "train"), transform)
    mixed = config.mixup > 0 or config.cutmix > 0  # in pairs of images
    batch = fitting_batch(config.batch_size, len(images), accumulate=config.accumulate, multiple=2 if mixed else 1)
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
        split_unit=2 if mixed else 1,
    )
