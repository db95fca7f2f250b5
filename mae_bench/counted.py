"""Operations and memory of one step, counted on tensors that have shapes and no memory."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from backbones.contract import Backbone
from mae_bench.core.precision import autocast
from mae_bench.core.training import LOGGED


class Counted(NamedTuple):
    """Of one micro-batch."""

    forward: float
    """Operations of the forward pass."""
    step: float
    """Operations of both passes."""
    kept: float
    """Bytes kept between them that are not weights."""


class Summed(nn.Module):
    """A backbone with a loss: the sum of its last block's tokens."""

    def __init__(self, backbone: Backbone) -> None:
        """Take the backbone."""
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The loss of normalised images (B, 3, H, W)."""
        return {"loss": self.backbone(images)[0].tokens.sum()}


def count(empty: Callable[[], nn.Module], real: Callable[[], nn.Module], batch: Any, precision: str) -> Counted:
    """Count one step.

    Args:
        empty: makes the model on the meta device; that is enough where no shape depends on numbers.
        real: makes it with memory; it is computed once where some do.
        batch: one micro-batch.
        precision: number format of the run.
    """
    model = empty()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, autocast("cpu", precision):
            return _count_passes(model.to_empty(device="cpu"), _fake(batch, mode))
    except DynamicOutputShapeException:
        with autocast("cpu", precision):
            return _count_passes(real(), batch)


def _fake(batch: Any, mode: FakeTensorMode) -> Any:
    """A batch whose tensors have shapes and no memory."""
    if isinstance(batch, dict):
        return {name: mode.from_tensor(value) for name, value in batch.items()}
    return mode.from_tensor(batch) if isinstance(batch, Tensor) else type(batch)(mode.from_tensor(value) for value in batch)


def _count_passes(model: nn.Module, batch: Any) -> Counted:
    own = {_storage(value) for value in model.state_dict(keep_vars=True).values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    model.train()
    if hasattr(model, "before_step"):
        cast(Any, model).before_step(0, 2)
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, batch)
        forward = counter.get_total_flops()
        size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        loss.backward()
    return Counted(forward, counter.get_total_flops(), size)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    """What is minimised: the sum of the terms that are not only logged."""
    losses = model(batch)
    return torch.stack([value.float() for name, value in losses.items() if not name.startswith(LOGGED)]).sum()
