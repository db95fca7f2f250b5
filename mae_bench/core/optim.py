"""Optimizers and their parameter groups: every trainable parameter in exactly one, scaled by its depth."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mae_bench.core.config import Config
from mae_bench.core.values import Betas

if TYPE_CHECKING:  # so that naming a recipe's optimizer loads no torch
    import torch
    from torch import nn

LayerId = Callable[[str], int]
NoDecay = Callable[[str, "nn.Parameter"], bool]


class OptimConfig(Config):
    """The optimizer of a training; `lr` is the peak rate, already scaled to the batch."""

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    weight_decay_end: float | None = Field(default=None, ge=0)
    """Weight decay at the end of the training, reached by half a cosine (DINO, arXiv 2104.14294); None keeps it as it is."""
    betas: Betas = (0.9, 0.999)
    """Of AdamW."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD and LARS."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Rate of a parameter is `layer_decay ** (depth + 1 - layer_id)` of the peak (BEiT, arXiv 2106.08254)."""
    clip_grad: float | None = Field(default=None, gt=0)
    """Largest norm of all gradients together; None does not clip."""


def scaled_lr(base_lr: float, batch_size: int) -> float:
    """The linear rule `lr = base_lr * effective batch / 256` (arXiv 1706.02677)."""
    return base_lr * batch_size / 256


def no_decay_1d(name: str, parameter: "nn.Parameter") -> bool:
    """The usual exemption from weight decay: biases, norms and everything else of one dimension."""
    return parameter.ndim <= 1


def parameter_groups(
    model: "nn.Module",
    config: OptimConfig,
    *,
    layer_id: LayerId | None = None,
    depth: int = 0,
    no_decay: NoDecay = no_decay_1d,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups of one rate and one weight decay.

    Args:
        model: its parameters with `requires_grad` are taken, each once.
        config: gives the decay values.
        layer_id: depth of a parameter by name, 0 for the stem to `depth + 1` for what is not in the backbone.
        depth: number of blocks of the backbone.
        no_decay: says which parameters have no weight decay.

    Returns:
        Groups with `params`, `names`, `lr_scale` and `weight_decay`, from the stem to the head.

    Raises:
        ValueError: nothing is trainable, or layer decay is asked for without `layer_id`.
    """
    if config.layer_decay != 1.0 and layer_id is None:
        raise ValueError("layer decay needs to know the depth of each parameter: pass layer_id")
    sorted_in: dict[tuple[int, bool], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            level = layer_id(name) if layer_id else depth + 1
            sorted_in[level, no_decay(name, parameter)].append((name, parameter))
    if not sorted_in:
        raise ValueError("no parameter of the model is trainable")
    return [
        {
            "params": [parameter for _, parameter in members],
            "names": [name for name, _ in members],
            "lr_scale": config.layer_decay ** (depth + 1 - level),
            "weight_decay": 0.0 if exempt else config.weight_decay,
            "exempt": exempt,
        }
        for (level, exempt), members in sorted(sorted_in.items(), key=lambda item: item[0])
    ]


def build_optimizer(groups: list[dict[str, Any]], config: OptimConfig) -> "torch.optim.Optimizer":
    """Make the optimizer over groups of `parameter_groups`."""
    import torch

    plain = [{key: value for key, value in group.items() if key != "names"} for group in groups]
    if config.name == "adamw":
        return torch.optim.AdamW(plain, lr=config.lr, betas=config.betas, fused=True)
    if config.name == "sgd":
        return torch.optim.SGD(plain, lr=config.lr, momentum=config.momentum)
    from timm.optim.lars import Lars

    for group, source in zip(plain, groups, strict=True):
        # timm switches the trust ratio off where the weight decay is 0, which is the setting of MAE's linear probe;
        # LARS there adapts every weight matrix and no 1-D tensor (arXiv 2111.06377, A.1).
        group["always_adapt"] = not source["exempt"]
    return Lars(plain, lr=config.lr, momentum=config.momentum, eps=0.0)  # type: ignore[arg-type]  # timm says int


def set_weight_decay(optimizer: "torch.optim.Optimizer", config: OptimConfig, step: int, steps: int) -> None:
    """Give every group that is not exempt the weight decay of a step."""
    if config.weight_decay_end is None:
        return
    share = (1 - math.cos(math.pi * step / max(1, steps - 1))) / 2
    for group in optimizer.param_groups:
        if not group["exempt"]:
            group["weight_decay"] = config.weight_decay + (config.weight_decay_end - config.weight_decay) * share


def set_lr(optimizer: "torch.optim.Optimizer", lr: float) -> None:
    """Give every group its share of the current rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
