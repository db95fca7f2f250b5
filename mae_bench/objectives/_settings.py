"""What an objective is, and the settings that all of them have."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from mae_bench.core.config import Config
from mae_bench.core.errors import ConfigError
from mae_bench.core.schedule import check_warmup
from mae_bench.core.values import Betas, Chance, CropScale

if TYPE_CHECKING:  # so that naming the recipes loads no torch
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from backbones.contract import Backbone, BackboneSpec


class PretrainConfig(Config):
    """What every objective can be told; each recipe says where its values come from."""

    epochs: int = Field(ge=1)
    """Passes over the training images."""
    batch_size: int = Field(ge=1)
    """Images of one optimizer step, over all processes and micro-batches (the effective batch)."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of one step in each process; they save memory, and leave batch norm and negatives the smaller batch."""
    base_lr: float = Field(gt=0)
    """Peak rate is `base_lr * batch_size / 256`."""
    warmup_epochs: float = Field(ge=0)
    """Linear warm-up from 0, in epochs; half a cosine to 0 follows."""
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    betas: Betas = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: float = Field(ge=0)
    """Biases, norms and other 1-D tensors are exempt."""
    weight_decay_end: float | None = Field(default=None, ge=0)
    """Weight decay at the end, reached by half a cosine; None keeps it as it is."""
    clip_grad: float | None = Field(default=None, gt=0)
    """Largest norm of all gradients together; None does not clip."""
    crop_scale: CropScale = (0.08, 1.0)
    """Area of a random crop as a share of the image (torchvision's default)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    image_size: int | None = Field(default=None, ge=1)
    """Side of the square input in pixels; None takes the architecture's own."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Largest stochastic depth rate of the backbone."""
    average_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is kept; None keeps the last weights."""
    compile: bool = False
    """Whether torch compiles the model: faster on a GPU after a minute or two, the last digits differ."""
    checkpointing: bool = False
    """Whether each block is computed again in the backward pass instead of keeping what is inside it: less memory, more time,
    the same numbers."""
    cache: Literal["auto", "always", "never"] = "auto"
    """Whether decoded images stay in memory: `auto` keeps them where they take less than 512 MB."""
    reduced_decode: bool = False
    """Whether a JPEG is decoded at 1/2, 1/4 or 1/8 of its resolution where a crop needs no more: faster for large photographs,
    and not the same pixels. Nothing is then kept in memory."""
    max_skipped: float = Field(default=0.001, ge=0, le=1)
    """Share of the training images that may be damaged, rounded up to whole images: they are left out and named in
    `skipped.jsonl`. 0 ends the training at the first."""
    probe_every: int = Field(default=0, ge=0)
    """Epochs between two measurements by kNN and a linear probe, which change nothing of the training; 0 is off."""

    @model_validator(mode="after")
    def _decays(self) -> Self:
        if self.reduced_decode and self.cache == "always":
            raise ValueError("reduced_decode decodes each crop anew; leave cache=always out")
        check_warmup("warmup_epochs", self.warmup_epochs, "epochs", self.epochs)
        return self

    def override(self, values: Mapping[str, Any], *, where: str = "") -> Self:
        """Give a copy with some values changed; see `Config.override`.

        Raises:
            ConfigError: also for a value that would have no effect. Those that a recipe has are not asked about.
        """
        changed = super().override(values, where=where)
        for name, why in changed.idle().items():
            if name in values:
                raise ConfigError(f"setting {f'{where}.' if where else ''}{name} has no effect: {why}; leave it out")
        return changed

    def idle(self) -> dict[str, str]:
        """Names of settings that nothing reads beside the others as they are, and why."""
        return {} if self.optimizer == "adamw" else {"betas": f"they are of adamw, and the optimizer is {self.optimizer}"}


class TeacherConfig(PretrainConfig):
    """What objectives with a momentum teacher share."""

    @model_validator(mode="after")
    def _one_average(self) -> Self:
        if self.average_decay is not None:
            raise ValueError("the teacher is a moving average of the weights already; leave average_decay out")
        return self


class PairConfig(TeacherConfig):
    """What objectives with two views and a momentum teacher share."""

    pool: Literal["cls", "mean"] = "cls"
    """What is projected, after the final norm: the class token (arXiv 2104.02057, section 3) or the mean of the patches."""
    momentum: float = Field(ge=0, lt=1)
    """Of the teacher at the start; it grows to 1 by half a cosine."""
    hidden_dim: int = Field(default=4096, ge=1)
    """Of projector and predictor (arXiv 2006.07733, section 3.3; arXiv 2104.02057, section 5)."""
    output_dim: int = Field(default=256, ge=1)
    """Of projector and predictor (the same places)."""
    jitter: float = Field(default=1.0, ge=0)
    """Strength of the colour jitter, in units of BYOL's (arXiv 2006.07733, table 6)."""
    blur: tuple[Chance, Chance] = (1.0, 0.1)
    """Chance of a blur in the first and second view (the same table)."""
    solarize: tuple[Chance, Chance] = (0.0, 0.2)
    """Chance of a solarisation in the first and second view (the same table)."""
    freeze_patch_projection: bool = False
    """Whether the patch projection stays random, which keeps ViTs stable (arXiv 2104.02057, section 4)."""


class Objective(Protocol):
    """A file of this room: what a backbone is pretrained to do."""

    Config: type[PretrainConfig]
    RECIPES: "dict[str, PretrainConfig]"
    """Named settings; every objective has `paper` and `demo`."""
    PER_IMAGE: bool
    """Whether the loss is a mean over images, so that micro-batches of any size give it; not with negatives or batch norm."""

    @staticmethod
    def build(backbone: "Backbone", config: Any, num_classes: int) -> "nn.Module":
        """Make what is trained: `module(batch)` gives a dict of loss terms, `module.backbone` is what is kept of it.

        It is initialised from torch's current generator. A file may be a `HasPictures` or
        `HasPreparation` as well.
        """
        ...

    @staticmethod
    def sample(config: Any, spec: "BackboneSpec") -> "Callable[[Tensor, int], Any]":
        """Make the function that turns an RGB image (3, H, W) uint8 and its label into a training sample."""
        ...

    @staticmethod
    def collate(samples: list[Any]) -> Any:
        """Make a batch of samples."""
        ...


class HasPreparation(Protocol):
    """An objective that looks at training images before it starts."""

    @staticmethod
    def prepare(module: "nn.Module", images: "Callable[[], Tensor]") -> None:
        """Fit what is fitted to the data; `images` gives uint8 images (B, 3, H, W) of the backbone's size."""
        ...


class HasPictures(Protocol):
    """An objective that can draw what it has learned."""

    @staticmethod
    def pictures(module: "nn.Module", images: "Tensor", out: "Path") -> None:
        """Draw what the module does with uint8 images (B, 3, H, W) into a file of the folder `out`."""
        ...
