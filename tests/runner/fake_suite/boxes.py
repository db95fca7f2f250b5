"""A task for another kind of data."""

from tests.runner.fake_suite.needy import METRICS, SELECTION, Config, evaluate

__all__ = ["KIND", "METRICS", "RECIPES", "REQUIRES", "SELECTION", "Config", "evaluate"]

KIND = "detection"
REQUIRES: tuple[str, ...] = ()
RECIPES = {"demo": Config()}
