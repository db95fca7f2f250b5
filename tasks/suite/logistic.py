"""Logistic regression on frozen features, its penalty chosen on held-out training images, as in CLIP (arXiv 2103.00020, A.3)."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from mae_bench.core.run import Run
from tasks.common.accuracy import ACCURACIES
from tasks.common.settings import Pooled

if TYPE_CHECKING:
    from backbones.source import Source
    from tasks.common.bank import Bank
    from tasks.handle import DataHandle

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = ACCURACIES
SELECTION = "the penalty with the best accuracy on a part of train held out; fitted anew on all of train"


class Config(Pooled):
    """Settings of the regression: L2-penalised and multinomial, by scikit-learn's L-BFGS."""

    exponents: tuple[float, ...] = Field(default=(-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0), min_length=1)
    """Powers of ten of the penalty that are tried first (CLIP A.3)."""
    steps_per_decade: int = Field(default=8, ge=0)
    """Steps around the best one are halved until a power of ten has that many (CLIP A.3: 8); 0 tries no further ones."""
    max_iter: int = Field(default=1000, ge=1)
    """Iterations of L-BFGS at most (CLIP A.3)."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of each class of train that the penalty is chosen on."""


RECIPES = {
    "paper": Config(),
    "demo": Config(pool="mean", crop_ratio=1.0, exponents=(-4.0, -2.0, 0.0), steps_per_decade=0, max_iter=300),
}

ABOUT = {
    "paper": "L-BFGS, penalty searched from 1e-6 to 1e6 and refined to 8 steps a decade (CLIP, arXiv 2103.00020, A.3)",
    "demo": "three penalties, mean of the patch tokens, for the embedded digits (own choice)",
}
"""What tells the recipes apart, and where each comes from."""

DEVIATIONS: tuple[str, ...] = (
    "the penalty is chosen on a tenth of train; CLIP takes the validation split of a data set where there is one",
)
"""Where `paper` differs from the recipe it is named after; every record of it says so."""


def deviations(recipe: str, config: Config, source: "Source", run: Run) -> tuple[str, ...]:
    """What a record says beside the number; see `tasks.contract.Task`."""
    from tasks.common.deviations import no_final_norm

    return no_final_norm(source)


def evaluate(source: "Source", data: "DataHandle", config: Config, run: Run) -> dict[str, float]:
    """Fit the regression on `train` and count what is right on `val`; see `tasks.contract.Task.evaluate`.

    Leaves `penalties.json` in `run.out`.
    """
    from tasks.common.accuracy import accuracy, ranked
    from tasks.common.bank import banks
    from tasks.common.regression import fit

    train, val = banks(source, data, config, run)
    penalty = _choose_penalty(train, config, run)
    scores = fit(train.features, train.classes, penalty, config.max_iter).scores(val.features, len(data.classes))
    return accuracy(ranked(scores), val.classes, len(data.classes), run.out)


def _choose_penalty(train: "Bank", config: Config, run: Run) -> float:
    from mae_bench.core.files import write_json
    from tasks.common.bank import held_out
    from tasks.common.regression import fit

    chosen = held_out(train.classes, config.held_out, run.seed)
    num_classes = int(train.classes.max()) + 1
    tried: dict[float, dict[str, float | int | bool]] = {}
    run.reporter.start("penalties", _count(config))

    def right(exponent: float) -> float:
        if exponent not in tried:
            model = fit(train.features[~chosen], train.classes[~chosen], 10**exponent, config.max_iter)
            hits = model.scores(train.features[chosen], num_classes).argmax(1) == train.classes[chosen]
            share = 100 * float(hits.double().mean())
            tried[exponent] = {"penalty": 10**exponent, "held_out_top1": share, "converged": model.converged}
            run.reporter.advance()
        return float(tried[exponent]["held_out_top1"])

    best = max(config.exponents, key=right)
    for step in _halvings(config):
        best = max((best, best - step, best + step), key=right)
    rows = [tried[exponent] for exponent in sorted(tried)]
    write_json(run.out / "penalties.json", {"chosen": 10**best, "held_out_images": int(chosen.sum()), "penalties": rows})
    return 10**best


def _halvings(config: Config) -> list[float]:
    """Distances to the neighbours of the best exponent, each half of the one before."""
    ladder = sorted(config.exponents)
    if not config.steps_per_decade or len(ladder) < 2:
        return []
    widest = min(after - before for before, after in pairwise(ladder))
    count = max(0, math.ceil(math.log2(widest * config.steps_per_decade)))
    return [widest / 2**place for place in range(1, count + 1)]


def _count(config: Config) -> int:
    """Regressions fitted in the search, at most."""
    return len(set(config.exponents)) + 2 * len(_halvings(config))
