"""A task that gives what its settings ask for."""

import math
from typing import Any, Literal

from mae_bench.core.config import Config as Base
from mae_bench.core.errors import InputError
from tasks.contract import Metric

KIND = "classification"
REQUIRES: tuple[str, ...] = ()
METRICS = (Metric("top1"), Metric("top5"))
SELECTION = "last step"
DEVIATIONS = ("paper is not what it was",)


class Config(Base):
    """What to give."""

    value: float = 50.0
    mode: Literal["ok", "nan", "more", "nothing", "error", "fault"] = "ok"


RECIPES = {"paper": Config(), "demo": Config(value=25.0), "other": Config(value=25.0)}


def evaluate(source: Any, data: Any, config: Config, run: Any) -> dict[str, float]:
    """Count the visit and do as told."""
    with (run.out / "visits").open("a") as file:
        file.write("x")
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
