"""A pretraining run: from an objective, an architecture and images to a checkpoint that `-m` takes as it is."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
import yaml
from torch import nn

from backbones.contract import Backbone, DenseOptions
from backbones.save import save_backbone
from backbones.source import open_source
from mae_bench.core import find, processes
from mae_bench.core.batches import Order
from mae_bench.core.board import check_board
from mae_bench.core.config import nearest
from mae_bench.core.engine import Training, train
from mae_bench.core.errors import ConfigError
from mae_bench.core.files import write_json, write_text
from mae_bench.core.optim import OptimConfig, scaled_lr
from mae_bench.core.parallel import check_machine, join
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from mae_bench.core.seeding import derive
from mae_bench.objectives._images import held_out, load_images
from mae_bench.objectives._parts import kept
from mae_bench.objectives._settings import PretrainConfig
from mae_bench.pretrain_record import (
    RECORD,
    SETTINGS,
    WEIGHTS,
    facts_of,
    finished,
    key_of,
    log_line,
    record_of,
    refuse_other,
    resolved,
)
from mae_bench.probe import check_probe, online_probe
from tasks.data import LabelledSplit
from tasks.handle import DataHandle

ROOM = "mae_bench.objectives"

PICTURES = 8
"""Held-out images in the picture of an objective that draws one."""
LOOKED_AT = 1024
"""Training images that an objective may look at before it starts."""


def pretrain(
    objective: str,
    arch: str,
    data: DataHandle,
    overrides: Mapping[str, str],
    run: Run,
    *,
    recipe: str = "paper",
) -> Path:
    """Pretrain a backbone, or go on where an earlier run was stopped; a finished run returns at once.

    Args:
        objective: a file of `mae_bench/objectives`.
        arch: an architecture of the zoo.
        data: a data set of kind `classification`; its labels are used only by objectives that need them.
        overrides: changes to the recipe's settings, as text by dotted key.
        run: where to write, how to compute, the seed.
        recipe: `paper` or `demo`.

    Returns:
        The checkpoint, `model.safetensors` in `run.out`.

    Raises:
        ConfigError: an unknown objective, recipe, setting or architecture, or a folder that holds another pretraining.
        InputError: images that cannot be used.
        Stopped: a signal came; the state is saved.
    """
    module, config, facts = _resolve(objective, arch, data, overrides, run, recipe)
    run = replace(run, max_skipped=config.max_skipped)
    weights = run.out / WEIGHTS
    if finished(run.out, facts):
        return weights
    join(run)  # before heads are made, which ask how many processes share a batch
    model = build_model(module, arch, data, config, run)
    if run.sharded:
        _check_shardable(model)
    if processes.is_main():
        write_text(run.out / SETTINGS, yaml.safe_dump(resolved(facts, config, data), sort_keys=False))
        log_line(run, f"{objective}:{recipe} of {arch} on {data.root}, seed {run.seed}, {config.epochs} epochs on {run.device}")
    if hasattr(module, "prepare"):
        split, size = cast(LabelledSplit, data.split("train")), _backbone(model).spec.image_size
        module.prepare(model, lambda: held_out(split, LOOKED_AT, size))
    training = _training(module, model, config, data, facts, run)
    trained = train(training, run)
    if processes.is_main():
        _keep(module, trained.average or trained.model, data, run, record=lambda: record_of(trained, training, facts, run))
    return weights


def _keep(module: ModuleType, model: nn.Module, data: DataHandle, run: Run, record: Callable[[], dict[str, Any]]) -> None:
    """Write what a finished training leaves, the record last."""
    backbone = kept(model)
    method = module.__name__.rpartition(".")[2]
    save_backbone(run.out / WEIGHTS, backbone, method=method, pretrain_data=f"{data.name}:{data.fingerprint[:12]}")
    if hasattr(module, "pictures"):
        module.pictures(model, held_out(cast(LabelledSplit, data.split("val")), PICTURES, backbone.spec.image_size), run.out)
    written = record()
    write_json(run.out / RECORD, written)
    log_line(
        run, f"done: {written['seconds']:.0f} s, {written['images_per_second']:.0f} images/s, loss {written['final_loss']:.4f}"
    )


def is_finished(
    objective: str, arch: str, data: DataHandle, overrides: Mapping[str, str], run: Run, *, recipe: str = "paper"
) -> bool:
    """Whether the very same pretraining is finished in `run.out`; raises what `pretrain` would refuse, and changes nothing."""
    return finished(run.out, _resolve(objective, arch, data, overrides, run, recipe)[2])


def _resolve(
    objective: str, arch: str, data: DataHandle, overrides: Mapping[str, str], run: Run, recipe: str
) -> tuple[ModuleType, PretrainConfig, dict[str, Any]]:
    """The objective, its settings and all that shapes the weights, checked before anything is written."""
    module = find.load(ROOM, objective, what="objective")
    check_machine(run)
    if run.tensorboard:
        check_board()
    config = settings(module, objective, recipe, overrides)
    if config.probe_every:
        check_probe()
    open_source(f"random:{arch}")
    facts = facts_of(objective, recipe, arch, data, config, run)
    refuse_other(run.out, facts)
    return module, config, facts


def settings(module: ModuleType, objective: str, recipe: str, overrides: Mapping[str, str]) -> PretrainConfig:
    """A recipe of an objective with some settings changed.

    Raises:
        ConfigError: an unknown recipe or setting, or a value of the wrong type.
    """
    if recipe not in module.RECIPES:
        raise ConfigError(f"unknown recipe {objective}:{recipe}; {nearest(recipe, list(module.RECIPES))}")
    return module.RECIPES[recipe].override(overrides, where=objective)


def build_model(module: ModuleType, arch: str, data: DataHandle, config: PretrainConfig, run: Run) -> nn.Module:
    """The objective's module around a fresh backbone, drawn from the run's seed; the global generator is left as it was."""
    size = None if config.image_size is None else (config.image_size, config.image_size)
    try:
        options = DenseOptions(image_size=size, drop_path=config.drop_path, checkpointing=config.checkpointing)
        backbone = open_source(f"random:{arch}").build(options, seed=run.seed)
    except ValueError as error:
        raise ConfigError(f"{arch}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(run.seed, "objective"))
        return module.build(backbone, config, len(data.classes))


def _check_shardable(model: nn.Module) -> None:
    """See that weights may be cut over processes: every block is called whole, and nothing else follows them."""
    backbone = _backbone(model)
    if hasattr(model, "teacher_backbone"):
        raise ConfigError("--sharded with an objective that has a teacher is not supported; leave it out")
    if getattr(backbone, "arch", None) is not None and getattr(cast(Any, backbone).arch, "on_grid", False):
        raise ConfigError(
            f"--sharded needs plain blocks, and {backbone.spec.name} has windows or relative positions; leave it out"
        )


def _training(
    module: ModuleType, model: nn.Module, config: PretrainConfig, data: DataHandle, facts: Mapping[str, Any], run: Run
) -> Training:
    split = cast(LabelledSplit, data.split("train"))
    spec = _backbone(model).spec
    images = load_images(split, module.sample(config, spec), config.cache, reduced=config.reduced_decode)
    per_epoch = Order(len(images), config.batch_size, run.seed).steps_per_epoch
    steps = int(config.epochs * per_epoch)
    probe = None
    if config.probe_every:
        recipe = facts["recipe"]
        probe = online_probe(data, spec, run, recipe=recipe, epochs=config.probe_every, steps_per_epoch=per_epoch)
    follows = hasattr(model, "before_step")
    return Training(
        model=model,
        dataset=images,
        collate=module.collate,
        optim=OptimConfig(
            name=config.optimizer,
            lr=scaled_lr(config.base_lr, config.batch_size),
            betas=config.betas,
            weight_decay=config.weight_decay,
            weight_decay_end=config.weight_decay_end,
            clip_grad=config.clip_grad,
        ),
        clip_each=getattr(config, "clip_each", False),
        schedule=ScheduleConfig(warmup_steps=round(config.warmup_epochs * per_epoch)),
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        steps=steps,
        key=key_of(facts),
        title=f"{facts['objective']} {facts['arch']}",
        before_step=(lambda step: cast(Any, model).before_step(step, steps)) if follows else None,
        after_step=probe,
        split_unit=_split_unit(module, config),
        average_decay=config.average_decay,
        compile=config.compile,
    )


def _split_unit(module: ModuleType, config: PretrainConfig) -> int:
    """What micro-batches stay multiples of when memory runs out; see `Training.split_unit`."""
    mixes = bool(getattr(config, "mixup", 0) or getattr(config, "cutmix", 0))
    return (2 if mixes else 1) if module.PER_IMAGE else 0


def _backbone(model: nn.Module) -> Backbone:
    return cast(Backbone, model.get_submodule("backbone"))
