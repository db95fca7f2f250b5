"""What a pretraining will cost: its size, its operations and memory counted without computing it, its time by a speed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from backbones.contract import BackboneSpec, DenseOptions
from backbones.source import open_source
from mae_bench import pretrain
from mae_bench.core import find
from mae_bench.core.batches import Order
from mae_bench.core.engine import to_device
from mae_bench.core.errors import ConfigError, InputError
from mae_bench.core.precision import autocast
from mae_bench.core.run import Run
from mae_bench.counted import count, loss_of
from mae_bench.estimate_memory import COUNTED, FLOAT, STATES
from mae_bench.lines import duration
from mae_bench.objectives._settings import PretrainConfig
from tasks.handle import DataHandle

TIMED = 8
"""Images of a step that is timed; fewer where a micro-batch has fewer."""
TIMED_STEPS = 2


@dataclass(frozen=True)
class PretrainCost:
    """One pretraining before it is run; memory in bytes of one device."""

    title: str
    parameters: int
    backbone_parameters: int
    forward_flops: float
    """Floating-point operations of a forward pass for one image; a multiplication and its addition are two."""
    step_flops: float
    """The same for forward and backward."""
    steps: int
    images: int
    """Drawn in the whole training."""
    micro_batch: int
    """Images at a time on one device."""
    devices: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    """Kept for the backward pass of one micro-batch."""
    throughput: float
    """Images a second of one device."""
    measured: bool
    """Whether the throughput was measured on this machine."""

    @property
    def memory(self) -> float:
        """Bytes of one device, but for what the device's libraries and single operations take."""
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def device_seconds(self) -> float:
        """Time of all devices together."""
        return self.images / self.throughput


def estimate(
    objective: str,
    arch: str,
    data: DataHandle,
    overrides: Mapping[str, str],
    *,
    recipe: str = "paper",
    precision: str = "fp32",
    device: str = "cpu",
    threads: int = 1,
    devices: int = 1,
    sharded: bool = False,
    throughput: float | None = None,
) -> PretrainCost:
    """Estimate a pretraining.

    Args:
        objective: a file of `mae_bench/objectives`.
        arch: an architecture of the zoo.
        data: what it would learn from; only counted.
        overrides: changes to the recipe's settings.
        recipe: named settings.
        precision: number format of the run.
        device: where a step is timed.
        threads: of a CPU on which a step is timed.
        devices: processes the batch is divided among, each with a device.
        sharded: whether weights, gradients and optimizer state are cut over them.
        throughput: images a second of one device; None times a few steps here.

    Raises:
        ConfigError: a setting that cannot be.
        InputError: fewer images than a batch.
    """
    module = find.load(pretrain.ROOM, objective, what="objective")
    config = pretrain.settings(module, objective, recipe, overrides)
    model, spec = _empty(module, arch, config, len(data.classes))
    parts = devices * config.accumulate
    if config.batch_size % parts:
        raise ConfigError(f"batch_size {config.batch_size} does not divide into {parts} micro-batches; change --devices")

    def empty() -> nn.Module:
        return _empty(module, arch, config, len(data.classes))[0]

    def real() -> nn.Module:
        return pretrain.build_model(module, arch, data, config, Run(Path()))

    images, micro_batch = len(data.split("train")), config.batch_size // parts
    if images < config.batch_size:
        raise InputError(f"{images} training samples for a batch of {config.batch_size}; lower batch_size")
    few, many = (count(empty, real, _batch(module, config, spec, size), precision) for size in COUNTED)

    def whole(small: float, large: float) -> float:
        """What a micro-batch takes, from what was counted of a few images and of many."""
        return small + (large - small) / (COUNTED[1] - COUNTED[0]) * (micro_batch - COUNTED[0])

    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    stored = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    share = devices if sharded else 1
    timed = min(TIMED, micro_batch)
    torch.set_num_threads(threads)
    speed = throughput or _speed(real, _batch(module, config, spec, timed), timed, precision, device)
    steps = int(config.epochs * Order(images, config.batch_size, 0).steps_per_epoch)
    return PretrainCost(
        title=f"{objective}:{recipe} of {arch}",
        parameters=sum(value.numel() for value in model.parameters()),
        backbone_parameters=sum(value.numel() for value in model.get_submodule("backbone").parameters()),
        forward_flops=whole(few.forward, many.forward) / micro_batch,
        step_flops=whole(few.step, many.step) / micro_batch,
        steps=steps,
        images=steps * config.batch_size,
        micro_batch=micro_batch,
        devices=devices,
        weights=stored * (2 if config.average_decay is not None else 1) / share,
        gradients=trainable * FLOAT / share,
        optimizer=trainable * FLOAT * STATES[config.optimizer] / share,
        activations=whole(few.kept, many.kept),
        throughput=speed,
        measured=throughput is None,
    )


def lines(cost: PretrainCost) -> list[str]:
    """The estimate as lines of text."""
    gib = 2**30
    parts = {"weights": cost.weights, "gradients": cost.gradients, "optimizer": cost.optimizer, "activations": cost.activations}
    memory = " + ".join(f"{name} {size / gib:.2f}" for name, size in parts.items())
    speed = f"{cost.throughput:.4g} images/s a device{', measured here' if cost.measured else ''}"
    return [
        cost.title,
        f"parameters  {cost.parameters / 1e6:.2f} M, of which backbone {cost.backbone_parameters / 1e6:.2f} M",
        f"operations  {cost.forward_flops / 1e9:.2f} GFLOP forward, {cost.step_flops / 1e9:.2f} with backward, an image",
        f"training    {cost.steps} steps, {cost.images} images, {cost.step_flops * cost.images / 1e18:.4g} EFLOP",
        f"memory      {cost.memory / gib:.2f} GiB a device: {memory}; micro-batches of {cost.micro_batch}",
        f"time        {cost.device_seconds / 3600:.2f} device hours, {duration(cost.device_seconds / cost.devices)} on "
        f"{cost.devices}, at {speed}",
    ]


def _empty(module: ModuleType, arch: str, config: PretrainConfig, classes: int) -> tuple[nn.Module, BackboneSpec]:
    """What is trained, without memory: names and shapes only."""
    source = open_source(f"random:{arch}")
    size = None if config.image_size is None else (config.image_size, config.image_size)
    options = DenseOptions(image_size=size, drop_path=config.drop_path, checkpointing=config.checkpointing)
    try:
        backbone = source._zoo.empty(source.arch, source.spec, options)
    except ValueError as error:
        raise ConfigError(f"{arch}: {error}") from error
    with torch.device("meta"):
        return module.build(backbone, config, classes), backbone.spec


def _batch(module: ModuleType, config: PretrainConfig, spec: BackboneSpec, size: int) -> Any:
    """A batch of images of noise, made as the objective makes its samples."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *spec.image_size), dtype=torch.uint8, generator=generator)
    sample = module.sample(config, spec)
    with torch.random.fork_rng(devices=[]):
        return module.collate([sample(image, 0) for _ in range(size)])


def _speed(build: Callable[[], nn.Module], batch: Any, size: int, precision: str, device: str) -> float:
    """Images a second of a few steps on this machine, without loading images."""
    place = torch.device(device)
    model = build().to(place).train()
    if hasattr(model, "before_step"):
        cast(Any, model).before_step(0, 2)
    batch = to_device(batch, place)
    started = 0.0
    for step in range(1 + TIMED_STEPS):
        if step == 1:
            started = time.monotonic()
        with autocast(device, precision):
            loss = loss_of(model, batch)
        loss.backward()
        float(loss.detach())  # reading a number waits for the device
    return TIMED_STEPS * size / max(time.monotonic() - started, 1e-6)
