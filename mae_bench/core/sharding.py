"""Weights, gradients and optimizer state cut over the processes of a training (FSDP2), and put together again.

torch's own `fully_shard` is called, not accelerate's plugin: on a CPU that one trains without sharding and says nothing, and what
is tested there is to be what runs on GPUs.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

BLOCK = re.compile(r"(.*\.)?blocks\.\d+")
"""Names of the modules whose weights are gathered together, just before each runs."""


def shard(model: nn.Module, device: str, world: int) -> None:
    """Cut the weights of a model over all processes, in place; the optimizer is to be made after it.

    Number formats are left to autocast, so that the numbers are those of a training without sharding.

    Args:
        model: the same in every process; its blocks are to be run by calling them.
        device: torch device type.
        world: number of processes.
    """
    mesh = init_device_mesh(device, (world,))
    for name, module in model.named_modules():
        if BLOCK.fullmatch(name):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(state: Any, *, keep: bool) -> Any:
    """A nested state with every sharded tensor put together on the CPU; all processes take part, those that `keep` get it."""
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if keep else None
    if isinstance(state, Mapping):
        return {key: whole(value, keep=keep) for key, value in state.items()}
    return [whole(value, keep=keep) for value in state] if isinstance(state, list) else state


def load_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give each process its part of whole weights."""
    mine = model.state_dict()
    model.load_state_dict({name: _part(value, mine[name]) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give each process its part of a whole optimizer state, of a training with any number of processes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        number: {name: _part(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _part(value: Any, like: Tensor) -> Any:
    """This process's part of a tensor that goes with a sharded one; every process has all of it, so nothing is sent."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
