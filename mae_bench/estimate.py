"""What cells will cost: from records of the same work, else from its size and the speed measured for a moment."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mae_bench.choose import load_task
from mae_bench.core.config import build
from mae_bench.core.errors import ConfigError
from mae_bench.estimate_memory import Size, measure, memory, trains
from mae_bench.plan import Cell
from results.labels import GroupKey, record_group
from results.record import Cost, Record
from results.request import Request

if TYPE_CHECKING:
    from backbones.contract import DenseOptions
    from backbones.source import Source

BACKWARD = 3.0
"""A step costs three forward passes: its own, and about two for the gradients of inputs and weights."""
IMAGES = 4
"""Images of the pass that is timed."""
EARLIER = "time: mean of earlier cells of the same settings, data and architecture"
MEASURED = "time: the backbone's operations by its speed, measured for a moment"
Measure = Callable[["Source"], float]


@dataclass(frozen=True)
class Estimate:
    """What one cell will cost."""

    seconds: float
    how: str
    """Where the time comes from, `EARLIER` or `MEASURED`."""
    tflops: float
    """Trillions of floating-point operations of the backbone over the whole cell."""
    memory: float = 0.0
    """Bytes: the most that earlier cells took, on a CPU with what the libraries do; else of the backbone alone, see
    `mae_bench.estimate_memory`."""


class Estimator:
    """Estimates cells one after another; what is opened or measured once is kept."""

    def __init__(self, records: Sequence[Record], device: str, measure: Measure | None = None, *, processes: int = 1) -> None:
        """Know what was measured.

        Args:
            records: of earlier cells.
            device: `cpu` or `cuda`.
            measure: billions of operations a second of a checkpoint; None measures them.
            processes: that share the work of a cell, each on a device of its own.
        """
        self._processes = processes
        self._spent: dict[tuple[GroupKey, str], list[Cost]] = {}
        for record in records:
            self._spent.setdefault((record_group(record), record.model.arch), []).append(record.cost)
        self._measure = measure or partial(measured_speed, device=device)
        self._sources: dict[tuple[str, bool], Source] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self._gflops: dict[tuple[str, DenseOptions], float] = {}
        self._speeds: dict[str, float] = {}
        self._sizes: dict[tuple[str, DenseOptions, str], Size] = {}

    def estimate(self, cell: Cell) -> Estimate:
        """What a cell will cost: the mean of earlier ones of the same protocol and architecture, else its work by the speed.

        Raises:
            ConfigError: the task asks the backbone for what its kind does not have.
        """
        asked, source = cell.request, self._source(cell.request)
        options = options_of(asked, source)
        work = self._forward(source, options) * passes(asked.config, *self._images(asked.data))
        same = self._spent.get((_group(asked), source.spec.name), [])
        if same:
            seconds = sum(cost.seconds for cost in same) / len(same)
            return Estimate(seconds, EARLIER, work / 1000, max(map(_peak, same)) or self._memory(asked, source, options))
        if source.spec.name not in self._speeds:
            self._speeds[source.spec.name] = self._measure(source)
        speed = self._speeds[source.spec.name] * self._processes
        return Estimate(work / speed, MEASURED, work / 1000, self._memory(asked, source, options))

    def _forward(self, source: "Source", options: "DenseOptions") -> float:
        key = source.spec.name, options
        if key not in self._gflops:
            check_options(source, options)
            self._gflops[key] = forward_gflops(source, options)
        return self._gflops[key]

    def _memory(self, asked: Request, source: "Source", options: "DenseOptions") -> float:
        key = source.spec.name, options, asked.precision
        if key not in self._sizes:
            self._sizes[key] = measure(source, options, precision=asked.precision)
        return memory(self._sizes[key], asked.config, self._images(asked.data)[0], self._processes)

    def _source(self, asked: Request) -> "Source":
        from backbones.source import open_source

        key = asked.source, asked.partial
        if key not in self._sources:
            self._sources[key] = open_source(asked.source, allow_partial=asked.partial)
        return self._sources[key]

    def _images(self, text: str) -> tuple[int, int]:
        from tasks.handle import open_data

        if text not in self._counts:
            data = open_data(text)
            self._counts[text] = len(data.split("train")), len(data.split("val"))
        return self._counts[text]


def passes(config: dict[str, Any], train: int, val: int) -> float:
    """Forward passes of one image that a cell's settings mean; an image the backbone is trained on counts for three."""
    if config.get("cached"):  # each image is seen once, whatever the number of epochs
        return float(train + val)
    steps, epochs, batch = config.get("steps"), config.get("epochs"), config.get("batch_size")
    if isinstance(steps, int) and isinstance(batch, int):
        return steps * batch * (BACKWARD if trains(config) else 1.0) + val
    if isinstance(epochs, int) and trains(config):
        return epochs * train * BACKWARD + val
    return float(train * epochs + val) if isinstance(epochs, int) and config.get("crop_scale") else float(train + val)


def options_of(asked: Request, source: "Source") -> "DenseOptions":
    """How a cell builds its backbone: as the task says, else for images of the size in its settings.

    Raises:
        ConfigError: settings that this backbone cannot have.
    """
    from backbones.contract import DenseOptions
    from tasks.common.sizes import input_size

    task = load_task(asked.task, asked.room)
    if hasattr(task, "dense_options"):
        return task.dense_options(build(task.Config, asked.config, where=asked.task), source.spec)
    return DenseOptions(image_size=input_size(source.spec, asked.config.get("image_size")))


def check_options(source: "Source", options: "DenseOptions") -> None:
    """Build a backbone without memory.

    Raises:
        ConfigError: this kind cannot be built so.
    """
    try:
        source._zoo.empty(source.arch, source.spec, options)
    except ValueError as error:
        raise ConfigError(f"{source.spec.name}: {error}") from error


def forward_gflops(source: "Source", options: "DenseOptions") -> float:
    """Billions of operations of one forward pass for one image of the options' size, counted without computing it."""
    from mae_bench.watched import Watched

    watched = Watched(source)
    watched.options, watched.input_size = options, options.image_size
    return watched.gflops() or 0.0


def measured_speed(source: "Source", *, device: str) -> float:
    """Billions of operations a second of forward passes on this machine.

    At the size that the network was pretrained with: at ViTDet's 1024 pixels a moment would be minutes of a CPU.
    """
    import torch

    from backbones.contract import DenseOptions

    size = source.spec.image_size
    backbone = source.build(DenseOptions()).eval().to(device)
    images = torch.zeros(IMAGES, 3, *size, device=device)
    with torch.no_grad():
        backbone(images[:1] if device == "cpu" else images)  # a GPU makes its plans for this very size
        started = time.monotonic()
        float(backbone(images)[0].tokens.sum())  # reading a number waits for the device
    return IMAGES * forward_gflops(source, DenseOptions(image_size=size)) / max(time.monotonic() - started, 1e-6)


def _peak(cost: Cost) -> float:
    """Bytes that a cell took of the device's memory; 0 where that is not known."""
    return (cost.peak_gpu_memory_mb or cost.peak_memory_mb or 0.0) * 2**20


def _group(asked: Request) -> GroupKey:
    return asked.task, asked.recipe, asked.config_digest, asked.version, asked.dataset, asked.fingerprint
