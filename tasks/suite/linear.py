"""Linear probe as MAE runs it: LARS on a frozen class token behind a batch norm (arXiv 2111.06377, A.1)."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from mae_bench.core.run import Run
from mae_bench.core.schedule import check_warmup
from tasks.common.accuracy import ACCURACIES
from tasks.common.settings import Augmented, Pooled

if TYPE_CHECKING:
    from torch import nn

    from backbones.source import Source
    from mae_bench.core.batches import MapData
    from tasks.common.bank import Bank
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = ACCURACIES
SELECTION = "last epoch; of several learning rates, the best on a part of train held out, then trained anew on all of it"
VERSION = 2


class Config(Pooled, Augmented):
    """Settings of the probe."""

    epochs: int = Field(default=90, ge=1)
    """Passes over the training images (Table 10)."""
    warmup_epochs: int = Field(default=10, ge=0)
    """Linear warm-up (Table 10)."""
    batch_size: int = Field(default=16384, ge=2)
    """Effective batch (Table 10); a smaller data set is one batch, and the rate follows."""
    base_lr: float = Field(default=0.1, gt=0)
    """At a batch of 256 (Table 10)."""
    optimizer: Literal["lars", "sgd", "adamw"] = "lars"
    """Momentum 0.9, no weight decay (Table 10)."""
    cached: bool = False
    """Train on features of the evaluation crop, computed once: far cheaper, and a protocol of its own. Crop and flip of training
    are then not used."""
    rates: int = Field(default=1, ge=1)
    """Learning rates tried when cached, `base_lr` and further ones below it, all trained together."""
    rate_ratio: float = Field(default=0.316, gt=0, lt=1)
    """From each rate to the next; half a power of ten."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of each class of train that the rate is chosen on."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_warmup("warmup_epochs", self.warmup_epochs, "epochs", self.epochs)
        if self.rates > 1 and not self.cached:
            raise ValueError("several rates are trained on cached features only; set cached=true, or rates=1")
        if self.cached and (self.crop_scale != (0.08, 1.0) or self.flip != 0.5):
            raise ValueError(
                "cached features are those of the evaluation crop: crop_scale and flip have no effect; leave them out"
            )
        return self


RECIPES = {
    "paper": Config(),
    "paper-large": Config(epochs=50),  # 50 epochs are enough for ViT-L and ViT-H (mae FINETUNE.md)
    "paper-huge": Config(epochs=50),
    # Ten rates around the published one, from 100 down to 0.003: few images make few steps, which need the large ones.
    "cached": Config(cached=True, base_lr=100.0, rates=10),
    "demo": Config(epochs=60, warmup_epochs=6, batch_size=256, base_lr=30.0, pool="mean", cached=True, crop_ratio=1.0),
}

ABOUT = {
    "paper": "ViT-B: LARS at base rate 0.1, batch 16384, 90 epochs of random crops (arXiv 2111.06377, Table 10)",
    "paper-large": "ViT-L: the same for 50 epochs (mae FINETUNE.md)",
    "paper-huge": "ViT-H: the same for 50 epochs (mae FINETUNE.md)",
    "cached": "any size: centre crops seen once, the best of ten rates on held-out training images; far cheaper (own choice)",
    "demo": "mean of the patch tokens, seen once, 60 epochs, for the embedded digits (own choice)",
}
"""What tells the recipes apart, and where each comes from."""

DEVIATIONS: tuple[str, ...] = (
    "batch norm takes its statistics over a whole micro-batch of a process; the published run over the 512 images of each of 32",
)
"""Where `paper` differs from the recipe it is named after; every record of it says so."""


def deviations(recipe: str, config: Config, source: "Source", run: Run) -> tuple[str, ...]:
    """What a record says beside the number; see `tasks.contract.Task`."""
    from tasks.common.deviations import no_final_norm, other_size

    return (*no_final_norm(source), *other_size(source, recipe))


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Train the probe on `train` and count what it gets right on `val`; see `tasks.contract.Task.evaluate`.

    Leaves `rates.json` in `run.out` where the learning rate is chosen.
    """
    probe = _cached if config.cached else _augmented
    return probe(source, data, config, run)


def _cached(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Probe features that are extracted once."""
    import torch
    from torch.utils.data import TensorDataset, default_collate

    from tasks.common.accuracy import accuracy, ranked
    from tasks.common.bank import banks
    from tasks.common.classifiers import Probe
    from tasks.common.train import seeded, training_key

    train, val = banks(source, data, config, run)
    key = training_key(source, data, config, run)
    lr = config.base_lr if config.rates == 1 else _choose_rate(train, len(data.classes), config, run, key)
    probe = seeded(lambda: Probe(train.features.shape[1], len(data.classes)), run)
    _train(probe, TensorDataset(*train), default_collate, config.model_copy(update={"base_lr": lr}), run, key)
    with torch.inference_mode():
        best = ranked(probe.eval().cpu().logits(val.features))
    return accuracy(best, val.classes, len(data.classes), run.out)


def _choose_rate(train: "Bank", num_classes: int, config: Config, run: Run, key: str) -> float:
    """The learning rate whose probe is best on a part of the training features that it was not trained on."""
    import torch
    from torch.utils.data import TensorDataset, default_collate

    from mae_bench.core.files import write_json
    from tasks.common.bank import held_out
    from tasks.common.classifiers import Heads
    from tasks.common.train import seeded

    chosen = held_out(train.classes, config.held_out, run.seed)
    heads = seeded(lambda: Heads(train.features.shape[1], num_classes, config.rates), run)
    fitted = TensorDataset(train.features[~chosen], train.classes[~chosen])
    _train(heads, fitted, default_collate, config, replace(run, out=run.out / "rates"), key)
    with torch.inference_mode():
        found = heads.eval().cpu().logits(train.features[chosen]).argmax(2)
    right = (found == train.classes[chosen].unsqueeze(1)).double().mean(0)
    rates = [config.base_lr * config.rate_ratio**place for place in range(config.rates)]
    best = int(right.argmax())
    shares = [{"base_lr": rate, "held_out_top1": 100 * float(share)} for rate, share in zip(rates, right, strict=True)]
    write_json(run.out / "rates.json", {"chosen": rates[best], "held_out_images": int(chosen.sum()), "rates": shares})
    return rates[best]


def _augmented(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Probe random crops, each of which the frozen backbone sees anew, as the paper does."""
    from tasks.common.classifiers import FrozenProbe
    from tasks.common.features import View, measure
    from tasks.common.images import Labelled, probe_transform, split_of, stack
    from tasks.common.readable import read_through
    from tasks.common.sizes import check_pool, input_size
    from tasks.common.train import check_whole, seeded, training_key

    check_whole("linear", run)
    check_pool(source.spec, config.pool)
    backbone = source.build(seed=run.seed)
    size = input_size(backbone.spec, config.image_size)
    probe = seeded(lambda: FrozenProbe(backbone, config.pool, len(data.classes), run.device), run)
    crops = Labelled(split_of(data, "train"), probe_transform(size, config.crop_scale, config.flip, backbone.spec.interpolation))
    val = split_of(data, "val")
    read_through(Labelled(val, lambda image: None), run, "linear probe")
    _train(probe, crops, stack, config, run, training_key(source, data, config, run))
    return measure(probe, probe.logits, val, View(size, config.crop_ratio, backbone.spec.interpolation), run)


def _train(
    model: "nn.Module", dataset: "MapData", collate: Callable[[list[Any]], Any], config: Config, run: Run, key: str
) -> None:
    from mae_bench.core.batches import Order
    from mae_bench.core.engine import Training, train
    from mae_bench.core.optim import OptimConfig, scaled_lr
    from tasks.common.classifiers import Heads, head_number
    from tasks.common.sizes import fitting_batch
    from tasks.common.train import epoch_schedule

    batch = fitting_batch(config.batch_size, len(dataset), accumulate=config.accumulate, multiple=2)
    steps, schedule = epoch_schedule(Order(len(dataset), batch, run.seed), config.epochs, config.warmup_epochs)
    ladder = head_number(model)
    train(
        Training(
            model=model,
            dataset=dataset,
            collate=collate,
            optim=OptimConfig(
                name=config.optimizer,
                lr=scaled_lr(config.base_lr, batch),
                layer_decay=config.rate_ratio if ladder is not None else 1.0,
            ),
            # Head i has a rate of ratio ** i of the largest, which is what layer decay gives a layer i below the top.
            layer_id=None if ladder is None else lambda name: 1 - ladder(name),
            schedule=schedule,
            batch_size=batch,
            steps=steps,
            accumulate=config.accumulate,
            key=key,
            title="linear probe",
            split_unit=0,  # batch norm
            before_step=model.restart_runaways if isinstance(model, Heads) else None,
        ),
        run,
    )
