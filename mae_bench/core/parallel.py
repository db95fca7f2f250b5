"""One training on its device or on many: number format, exchange of gradients, sharded weights, states that are whole."""

import copy
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mae_bench.core import processes
from mae_bench.core.errors import ConfigError, Diverged
from mae_bench.core.optim import build_optimizer, parameter_groups
from mae_bench.core.run import Run
from mae_bench.core.training import LOGGED, Training

FORMATS: dict[str, Literal["no", "bf16", "fp16"]] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def check_machine(run: Run) -> None:
    """See that the machine can do what is asked of it.

    Raises:
        ConfigError: fp16 on a CPU, which has no loss scaling here; sharding among one process, or in fp16.
    """
    if run.precision == "fp16" and run.device == "cpu":
        raise ConfigError("a training in fp16 needs a GPU; use --precision bf16 or fp32")
    if run.sharded and processes.world() == 1:
        raise ConfigError("--sharded cuts a model over processes, and this is one; start it by torchrun --nproc_per_node N")
    if run.sharded and run.precision == "fp16":
        raise ConfigError("--sharded with --precision fp16: scaled losses of sharded weights are not supported; use bf16")


class Parallel:
    """The model and its optimizer in one of the processes that train it together."""

    def __init__(self, training: Training, run: Run) -> None:
        check_machine(run)
        self.accelerator = _accelerator(run)
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.module = training.model
        self._title, self._sharded = training.title, run.sharded
        self._plain: nn.Module | None = None
        if run.sharded:
            self._shard(training)
        groups = parameter_groups(
            self.module, training.optim, layer_id=training.layer_id, depth=training.depth, no_decay=training.no_decay
        )
        optimizer = build_optimizer(groups, training.optim)
        if training.compile:
            self.module.compile()
        if run.sharded:
            # What accelerate would put around the model for DDP is not wanted; its number format is.
            self.model = self.accelerator.prepare_model(self.module, evaluation_mode=True)
            self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        else:
            self.model, self.optimizer = self.accelerator.prepare(self.module, optimizer)
        self.average = _average(self.module, training.average_decay)

    def _shard(self, training: Training) -> None:
        from mae_bench.core.sharding import shard

        asked = {
            "average_decay": training.average_decay is not None,
            "compile=true": training.compile,
            "optimizer=lars": training.optim.name == "lars",
        }
        for name in (name for name, given in asked.items() if given):
            raise ConfigError(f"{self._title}: {name} is not supported with --sharded; leave one of them out")
        if self.is_main:
            self._plain = copy.deepcopy(self.module)
        shard(self.module, self.device.type, self.world)

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged between processes once a step, with its last micro-batch."""
        if self._sharded:
            cast(Any, self.model).set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def clip(self, norm: float, *, each: bool = False) -> None:
        """Shorten all gradients together to a norm, or each by itself."""
        if not each:
            self.accelerator.clip_grad_norm_(self.model.parameters(), norm)
            return
        self.accelerator.unscale_gradients()
        for parameter in self.model.parameters():
            nn.utils.clip_grad_norm_(parameter, norm)

    def update(self) -> None:
        """Let the optimizer make its step, and the average follow."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.module)

    def any_of(self, *flags: bool) -> list[bool]:
        """Whether each holds in any process; all of them get the same answer."""
        if self.world == 1:
            return list(flags)
        asked = torch.tensor([float(flag) for flag in flags], device=self.device)
        return [value > 0 for value in cast(Tensor, self.accelerator.reduce(asked, reduction="sum")).tolist()]

    def numbers(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Loss terms as numbers, averaged over the processes; where those of any are not finite, each gets some that are not.

        Those are its own, or one that names another process: a model that gives up in the middle of its losses has other terms.
        """
        values = torch.stack([value.float() for value in terms.values()])
        own = dict(zip(terms, values.tolist(), strict=True))
        if self.world == 1:
            return own
        broken = not all(math.isfinite(value) for name, value in own.items() if not name.startswith(LOGGED))
        if any(self.any_of(broken)):
            return own if broken else {"loss_of_another_process": math.nan}
        means = cast(Tensor, self.accelerator.reduce(values, reduction="mean"))
        return dict(zip(terms, means.tolist(), strict=True))

    def check_weights(self) -> None:
        """See that no weight has become one that is not finite.

        Raises:
            Diverged: one has, in any process.
        """
        broken = [name for name, value in self.module.named_parameters() if not bool(_local(value).isfinite().all())]
        if any(self.any_of(bool(broken))):
            name = broken[0] if broken else "a weight of another process"
            raise Diverged(f"{self._title}: {name} is not finite after the last step")

    def state(self) -> dict[str, Any] | None:
        """What goes on exactly in any number of processes, sharded or not; all take part, only the main one gets it."""
        scaler = self.accelerator.scaler
        if not (self._sharded or self.is_main):
            return None
        state = {
            "model": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "average": self.average.state_dict() if self.average is not None else {},
            "world": self.world,
        }
        if self._sharded:
            from mae_bench.core.sharding import whole

            state = whole(state, keep=self.is_main)
        return state if self.is_main else None

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave, here or in another number of processes."""
        if self._sharded:
            from mae_bench.core.sharding import load_optimizer, load_weights

            load_weights(self.module, state["model"])
            load_optimizer(self.optimizer, state["optimizer"])
        else:
            self.module.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def trained(self, state: Mapping[str, Any] | None) -> nn.Module:
        """The model without anything around it, given its end state; of sharded weights the main process has a whole copy."""
        if self._plain is not None and state is not None:
            self._plain.load_state_dict(state["model"])
            return self._plain
        return self.module if self._sharded else self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)


def join(run: Run) -> None:
    """Let the processes of a run know each other where no training does."""
    _accelerator(run)


def _accelerator(run: Run) -> Accelerator:
    return Accelerator(mixed_precision=FORMATS[run.precision], cpu=run.device == "cpu")


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
    return average.requires_grad_(False)


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be sharded."""
    return cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor
