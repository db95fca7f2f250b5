"""A pretraining run: from an objective, an architecture and images to a checkpoint that `-m` takes as it is."""

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
import yaml
from torch import nn

import mae_bench
from backbones.contract import Backbone, DenseOptions
from backbones.save import save_backbone
from backbones.source import open_source
from mae_bench.core import find
from mae_bench.core.batches import Order
from mae_bench.core.config import nearest
from mae_bench.core.engine import Trained, Training, train
from mae_bench.core.errors import ConfigError
from mae_bench.core.files import write_json, write_text
from mae_bench.core.optim import OptimConfig, scaled_lr
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from mae_bench.core.seeding import derive
from mae_bench.objectives._images import held_out, load_images
from mae_bench.objectives._settings import PretrainConfig
from tasks.data.folder import ImageFolderSplit
from tasks.handle import DataHandle

ROOM = "mae_bench.objectives"
WEIGHTS = "model.safetensors"
SETTINGS = "config.yaml"
RECORD = "pretrain.json"
LOG = "log.txt"

PICTURES = 8
"""Held-out images in the picture of an objective that draws one."""
VERSIONS = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "lightly")


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
    weights = run.out / WEIGHTS
    if _finished(run.out, facts):
        return weights
    model = _build(module, arch, data, config, run)
    write_text(run.out / SETTINGS, yaml.safe_dump(_resolved(facts, config, data), sort_keys=False))
    _log(run, f"{objective}:{recipe} of {arch} on {data.root}, seed {run.seed}, {config.epochs} epochs on {run.device}")
    training = _training(module, model, config, data, facts, run)
    trained = train(training, run)
    backbone = _backbone(model)
    save_backbone(weights, backbone, method=objective, pretrain_data=f"{data.name}:{data.fingerprint[:12]}")
    if hasattr(module, "pictures"):
        module.pictures(model, held_out(cast(ImageFolderSplit, data.split("val")), PICTURES, backbone.spec.image_size), run.out)
    record = _record(trained, training, facts, run)
    write_json(run.out / RECORD, record)
    _log(run, f"done: {record['seconds']:.0f} s, {record['images_per_second']:.0f} images/s, loss {record['final_loss']:.4f}")
    return weights


def is_finished(
    objective: str, arch: str, data: DataHandle, overrides: Mapping[str, str], run: Run, *, recipe: str = "paper"
) -> bool:
    """Whether the very same pretraining is finished in `run.out`; raises what `pretrain` would refuse, and changes nothing."""
    return _finished(run.out, _resolve(objective, arch, data, overrides, run, recipe)[2])


def _resolve(
    objective: str, arch: str, data: DataHandle, overrides: Mapping[str, str], run: Run, recipe: str
) -> tuple[ModuleType, PretrainConfig, dict[str, Any]]:
    """The objective, its settings and all that shapes the weights, checked before anything is written."""
    module = find.load(ROOM, objective, what="objective")
    config = settings(module, objective, recipe, overrides)
    open_source(f"random:{arch}")
    facts = _facts(objective, recipe, arch, data, config, run)
    _refuse_other(run.out, facts)
    return module, config, facts


def settings(module: ModuleType, objective: str, recipe: str, overrides: Mapping[str, str]) -> PretrainConfig:
    """A recipe of an objective with some settings changed.

    Raises:
        ConfigError: an unknown recipe or setting, or a value of the wrong type.
    """
    if recipe not in module.RECIPES:
        raise ConfigError(f"unknown recipe {objective}:{recipe}; {nearest(recipe, list(module.RECIPES))}")
    return module.RECIPES[recipe].override(overrides, where=objective)


def _facts(objective: str, recipe: str, arch: str, data: DataHandle, config: PretrainConfig, run: Run) -> dict[str, Any]:
    """Everything that shapes the weights; two runs with equal facts make the same checkpoint."""
    if data.kind != "classification":
        raise ConfigError(f"pretraining reads image folders, and {data.name} is a {data.kind} data set; give -d folder=PATH")
    shaping = {name: value for name, value in config.model_dump(mode="json").items() if name != "cache"}
    return {
        "objective": objective,
        "recipe": recipe,
        "arch": arch,
        "data": data.fingerprint,
        "seed": run.seed,
        "precision": run.precision,
        "settings": shaping,
    }


def _key(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _resolved(facts: Mapping[str, Any], config: PretrainConfig, data: DataHandle) -> dict[str, Any]:
    """What `config.yaml` says: the facts, where the data lay, and with which versions it was run."""
    place = {"name": data.name, "root": str(data.root), "fingerprint": data.fingerprint}
    return {**facts, "data": place, "settings": config.model_dump(mode="json"), "versions": _versions()}


def _refuse_other(out: Path, facts: Mapping[str, Any]) -> None:
    """Leave a folder alone that holds a pretraining with other settings."""
    path = out / SETTINGS
    if not path.exists():
        return
    try:
        there = yaml.safe_load(path.read_text())
        there = {**{name: there.get(name) for name in facts}, "data": there["data"]["fingerprint"]}
        there["settings"] = {name: value for name, value in there["settings"].items() if name != "cache"}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not the settings of a pretraining; choose another -o") from error
    differing = [f"{name} is {old!r} there, {new!r} here" for name, old, new in _differences(there, facts)]
    if differing:
        raise ConfigError(f"{out} holds another pretraining: {'; '.join(differing)}; choose another -o")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    flat = [{**{k: v for k, v in side.items() if k != "settings"}, **side["settings"]} for side in (old, new)]
    names = [*flat[1], *(name for name in flat[0] if name not in flat[1])]
    return [(name, flat[0].get(name), flat[1].get(name)) for name in names if flat[0].get(name) != flat[1].get(name)]


def _finished(out: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the record, which is written last, is there and is of these very weights."""
    try:
        record = json.loads((out / RECORD).read_text())
        return record["key"] == _key(facts) and record["sha256"] == _sha256(out / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build(module: ModuleType, arch: str, data: DataHandle, config: PretrainConfig, run: Run) -> nn.Module:
    """The objective's module around a fresh backbone, drawn from the run's seed; the global generator is left as it was."""
    size = None if config.image_size is None else (config.image_size, config.image_size)
    try:
        options = DenseOptions(image_size=size, drop_path=config.drop_path)
        backbone = open_source(f"random:{arch}").build(options, seed=run.seed)
    except ValueError as error:
        raise ConfigError(f"{arch}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(run.seed, "objective"))
        return module.build(backbone, config, len(data.classes))


def _training(
    module: ModuleType, model: nn.Module, config: PretrainConfig, data: DataHandle, facts: Mapping[str, Any], run: Run
) -> Training:
    split = cast(ImageFolderSplit, data.split("train"))
    images = load_images(split, module.sample(config, _backbone(model).spec), config.cache)
    per_epoch = Order(len(images), config.batch_size, run.seed).steps_per_epoch
    steps = int(config.epochs * per_epoch)
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
        schedule=ScheduleConfig(warmup_steps=round(config.warmup_epochs * per_epoch)),
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        steps=steps,
        key=_key(facts),
        title=f"{facts['objective']} {facts['arch']}",
        before_step=(lambda step: cast(Any, model).before_step(step, steps)) if follows else None,
        split_unit=_split_unit(module, config),
    )


def _split_unit(module: ModuleType, config: PretrainConfig) -> int:
    """What micro-batches stay multiples of when memory runs out; see `Training.split_unit`."""
    mixes = bool(getattr(config, "mixup", 0) or getattr(config, "cutmix", 0))
    return (2 if mixes else 1) if module.PER_IMAGE else 0


def _backbone(model: nn.Module) -> Backbone:
    return cast(Backbone, model.get_submodule("backbone"))


def _record(trained: Trained, training: Training, facts: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """What `pretrain.json` says of a finished run; seconds and images are of all sessions."""
    last_epoch = trained.losses[-max(1, len(training.dataset) // training.batch_size) :]
    return {
        "key": _key(facts),
        "sha256": _sha256(run.out / WEIGHTS),
        "objective": facts["objective"],
        "recipe": facts["recipe"],
        "arch": facts["arch"],
        "data": facts["data"],
        "seed": run.seed,
        "steps": training.steps,
        "images": trained.samples,
        "seconds": trained.seconds,
        "images_per_second": trained.samples / max(trained.seconds, 1e-9),
        "final_loss": sum(last_epoch) / len(last_epoch),
        "device": run.device,
        "precision": run.precision,
        "threads": run.threads,
        "versions": _versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {"mae-bench": mae_bench.__version__, "python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _log(run: Run, text: str) -> None:
    """Add a line to `log.txt`."""
    run.out.mkdir(parents=True, exist_ok=True)
    with (run.out / LOG).open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
