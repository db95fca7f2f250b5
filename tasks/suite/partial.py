"""Partial fine-tuning: the last blocks are trained, the rest is frozen (arXiv 2111.06377, Section 4.3 and Figure 9)."""

from typing import TYPE_CHECKING

from pydantic import Field

from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from tasks.common.accuracy import ACCURACIES
from tasks.suite import finetune

if TYPE_CHECKING:
    from backbones.source import Source
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = ACCURACIES
SELECTION = "last epoch"


class Config(finetune.Config):
    """Settings of the training; the defaults are those of Table 9 for ViT-L, by which Figure 9 was made."""

    blocks: float = Field(default=4.0, ge=0, multiple_of=0.5)
    """Blocks trained, from the last one down; half a block is its MLP, with the norm before it. 0 trains the classifier alone."""
    epochs: int = Field(default=50, ge=1)
    """The paper takes 50, 100 or 200 for each number of blocks and does not say which (A.1); 50 is full fine-tuning's."""
    base_lr: float = Field(default=1e-3, gt=0)
    """At a batch of 256 (Table 9)."""
    layer_decay: float = Field(default=0.75, gt=0, le=1)
    """Table 9."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Table 9; frozen blocks are never dropped."""


FIGURE_9 = (0.5, 1.0, 2.0, 4.0, 6.0, 12.0, 18.0)
"""Numbers of blocks of the figure, and the half block of the text. Its 0 blocks are the linear probe, its 24 full fine-tuning:
tasks of their own."""


def _which(blocks: float) -> str:
    """A number of blocks in words."""
    return {0.5: "the MLP of the last block", 1.0: "the last block"}.get(blocks, f"the last {blocks:g} blocks")


RECIPES = {
    "paper": Config(),
    **{f"paper-{blocks:g}": Config(blocks=blocks) for blocks in FIGURE_9},
    "demo": Config(blocks=2.0, **{**finetune.RECIPES["demo"].model_dump(), "drop_path": 0.0}),
}

ABOUT = {
    "paper": "ViT-L: the last 4 blocks, 50 epochs (arXiv 2111.06377, Figure 9, with the values of Table 9)",
    **{f"paper-{blocks:g}": f"ViT-L: {_which(blocks)}, 50 epochs (the same places)" for blocks in FIGURE_9},
    "demo": "the last 2 blocks, with the values of finetune:demo (own choice)",
}
"""What tells the recipes apart, and where each comes from."""

DEVIATIONS: tuple[str, ...] = (
    "50 epochs; the paper chooses 50, 100 or 200 for each number of blocks and does not say which",
    "one draw of mixup or cutmix is for a whole micro-batch of a process; in the published run for the 32 images of each of 32",
)
"""Where `paper` differs from the recipe it is named after; every record of it says so."""


def deviations(recipe: str, config: Config, source: "Source", run: Run) -> tuple[str, ...]:
    """What a record says beside the number; see `tasks.contract.Task`."""
    from tasks.common.deviations import no_final_norm, other_size

    size = other_size(source, "paper-large" if recipe.startswith("paper") else recipe)
    return (*(no_final_norm(source) if config.pool == "cls" else ()), *size)


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Fine-tune the last blocks on `train` and count what is right on `val`; see `tasks.contract.Task.evaluate`.

    Raises:
        ConfigError: more blocks than the network has.
    """
    from functools import partial

    from tasks.common.classifiers import PartlyTuned

    if config.blocks > source.spec.depth:
        raise ConfigError(f"partial.blocks={config.blocks:g} of a network with {source.spec.depth} blocks; lower partial.blocks")
    return finetune.tune(source, data, config, run, partial(PartlyTuned, blocks=config.blocks))
