"""Measurements during a pretraining: kNN and a linear probe by the very code of the tasks, beside the training's path."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from backbones.contract import Backbone, BackboneSpec
from backbones.save import save_backbone
from backbones.source import open_source
from mae_bench.core import metrics, processes
from mae_bench.core.errors import ConfigError
from mae_bench.core.progress import Silent
from mae_bench.core.run import Run
from mae_bench.core.training import LOGGED
from mae_bench.objectives._parts import kept
from tasks.handle import DataHandle
from tasks.suite import knn, linear

FOLDER = "probe"
"""In the run's folder, while a measurement is made."""
RECIPES = {"demo": ("demo", "demo")}
"""Recipes of `knn` and `linear` by the pretraining's; for any other it is those of `USUAL`."""
USUAL = ("paper", "cached")


@dataclass(frozen=True)
class OnlineProbe:
    """What the engine calls after each step; it measures the backbone at the end of every few epochs.

    The weights are written to a file and read like any checkpoint, so that `mae-bench run` on that file gives the same numbers.
    Random states are put back, and the model is not touched.
    """

    data: DataHandle
    every: int
    """Steps between two measurements."""
    knn: knn.Config
    linear: linear.Config
    run: Run

    def __call__(self, step: int, model: nn.Module) -> dict[str, float]:
        """Measure where it is time to, and where the log does not have the numbers from before a resume.

        Args:
            step: number of steps made.
            model: of an objective.

        Returns:
            `log/knn_top1`, `log/linear_top1` and so on, in percent; empty between measurements.
        """
        if step % self.every or self._is_logged(step - 1):
            return {}
        with _random_states_kept():
            return self._measure(kept(model))

    def _measure(self, backbone: Backbone) -> dict[str, float]:
        folder = self.run.out / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        path = folder / "model.safetensors"
        save_backbone(path, backbone, method="unfinished", pretrain_data=self.data.name)
        source, found = open_source(str(path)), {}
        for task, config in ((knn, self.knn), (linear, self.linear)):
            name = task.__name__.rpartition(".")[2]
            run = replace(self.run, out=folder / name, cache=folder / "features", reporter=Silent(), tensorboard=False)
            for metric, value in task.evaluate(source, self.data, config, run).items():
                found[f"{LOGGED}{name}_{metric}"] = value
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _is_logged(self, step: int) -> bool:
        return any(line.get("step") == step and f"{LOGGED}knn_top1" in line for line in metrics.lines(self.run.out))


def check_probe() -> None:
    """See that a probe can be made here.

    Raises:
        ConfigError: there are several processes.
    """
    if processes.world() > 1:
        raise ConfigError("probe_every is for a pretraining in one process; leave it out, and measure with `mae-bench run`")


def online_probe(
    data: DataHandle, spec: BackboneSpec, run: Run, *, recipe: str, epochs: int, steps_per_epoch: float
) -> OnlineProbe:
    """Make the probe of a pretraining, and see that it will not fail after hours.

    Args:
        data: what is pretrained on; the probe is trained on its `train` and measured on its `val`.
        spec: of the backbone; its class token is measured or, where it has none, the mean of its patches.
        run: of the pretraining.
        recipe: of the pretraining; `demo` takes the tasks' own `demo`, any other `knn:paper` and `linear:cached`.
        epochs: between two measurements.
        steps_per_epoch: of the pretraining.

    Raises:
        ConfigError: fewer training images than neighbours vote.
    """
    names = RECIPES.get(recipe, USUAL)
    neighbours, probe = knn.RECIPES[names[0]], linear.RECIPES[names[1]]
    if spec.num_prefix_tokens == 0:
        neighbours = neighbours.model_copy(update={"pool": "mean"})
        probe = probe.model_copy(update={"pool": "mean"})
    most, images = max(neighbours.k, *neighbours.also_k, 1), len(data.split("train"))
    if most > images:
        raise ConfigError(f"probe_every: knn:{names[0]} takes {most} neighbours of {images} training images; leave it out")
    data.split("val")
    return OnlineProbe(data, int(epochs * steps_per_epoch), neighbours, probe, run)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
