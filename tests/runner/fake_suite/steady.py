"""A task that gives what its settings ask for."""

import math
from typing import Any, Literal

import torch

from backbones.contract import DenseOptions
from mae_bench.core.config import Config as Base
from mae_bench.core.errors import InputError
from tasks.contract import Metric

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = (Metric("top1"), Metric("top5"))
SELECTION = "last step"
DEVIATIONS = ("paper is not what it was",)
DEVIATIONS_OF = {"other": ("other is a copy",)}


class Config(Base):
    """What to give."""

    value: float = 50.0
    size: int = 0
    """Side of the images that a backbone is built for and shown; 0 builds none."""
    mode: Literal["ok", "nan", "more", "nothing", "error", "fault"] = "ok"


RECIPES = {"paper": Config(), "demo": Config(value=25.0), "other": Config(value=25.0)}


def deviations(recipe: str, config: Config, source: Any, run: Any) -> tuple[str, ...]:
    """What is said of one cell."""
    return (f"{source.spec.name} is small",) if recipe == "other" else ()


def evaluate(source: Any, data: Any, config: Config, run: Any) -> dict[str, float]:
    """Count the visit and do as told."""
    with (run.out / "visits").open("a") as file:
        file.write("x")
    if config.size:
        source.build(DenseOptions(image_size=(config.size, config.size)))(torch.zeros(4, 3, config.size, config.size))
    run.reporter.start("steady", 1)
    run.reporter.advance()
    if config.mode == "error":
        raise InputError("this data set is broken; fetch it again")
    if config.mode == "fault":
        raise ZeroDivisionError("a fault of the suite")
    if config.mode == "nothing":
        return {}
    top1 = math.nan if config.mode == "nan" else config.value + run.seed
    return {"top5": 75.0, "top1": top1, **({"extra": 1.0} if config.mode == "more" else {})}
