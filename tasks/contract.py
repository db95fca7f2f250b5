"""What a task is: a module that satisfies `Task`, and the values that go in and come out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mae_bench.core import config as core
from mae_bench.core.run import Run
from tasks.data import Kind

if TYPE_CHECKING:  # so that naming a task's recipes loads no torch
    from backbones.source import Source
    from tasks.handle import DataHandle


@dataclass(frozen=True)
class Metric:
    """One number a task reports."""

    name: str
    unit: str = "%"
    higher_is_better: bool = True


class Task(Protocol):
    """One benchmark: a file in `tasks/suite` with these names in it.

    It may also have `ABOUT`, a line by recipe that tells it from the others and names its source; `VERSION`, a number that is
    raised when the same settings come to mean another number (1 without it); `DEVIATIONS`, lines about where its `paper` recipes
    differ from what they are named after; `deviations(recipe, config, source, run)`, further such lines about one cell;
    `by_class(out)`, name and numbers of each class, of what `evaluate` left in its folder; `dense_options(config, spec)`, how it
    builds the backbone, where `image_size` in its settings does not tell all that its cost depends on; and
    `export_native(source, config, path)`, which writes the config of the task's framework, and gets the cell's data too where it
    has a parameter `handle`.
    """

    Config: type[core.Config]
    RECIPES: Mapping[str, core.Config]
    """Named settings of published protocols; every task has `paper` and `demo`."""
    METRICS: tuple[Metric, ...]
    """What `evaluate` returns, in the order of the table's columns."""
    KIND: Kind
    """The kind of data set it takes."""
    REQUIRES: tuple[str, ...]
    """Modules it needs beyond the light core, such as `detectron2`."""
    SELECTION: str
    """Which weights the number is of, such as `last step`: never the best on the evaluation split."""

    @staticmethod
    def evaluate(source: "Source", data: "DataHandle", config: Any, run: Run) -> dict[str, float]:
        """Train what the protocol trains and measure it on held-out data.

        Args:
            source: builds the backbone with the pretrained weights, as often as asked.
            data: the data set's `train` and `val` splits.
            config: one of this task's settings.
            run: where to write, how to compute, the seed.

        Returns:
            Value by metric name; a metric that the data cannot give (masks where there are only boxes) is left out.
        """
        ...
