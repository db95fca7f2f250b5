"""A task whose framework is not installed."""

from typing import Any

from mae_bench.core.config import Config as Base
from tasks.contract import Metric

KIND = "classification"
REQUIRES = ("mmseg", "a_framework_that_is_not_there")
METRICS = (Metric("top1"),)
SELECTION = "last step"


class Config(Base):
    """Nothing to set."""


RECIPES = {"paper": Config(), "demo": Config()}


def evaluate(source: Any, data: Any, config: Config, run: Any) -> dict[str, float]:
    """Never called."""
    raise AssertionError
