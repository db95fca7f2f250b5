"""The one training engine: pretraining and every task that trains go through `train`.

It knows nothing of what is trained. Randomness is keyed by counters and the whole state is saved, so that a run cut at any
moment and started again ends in the same weights, bit for bit, on the same machine.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mae_bench.core import checkpoint, faults, metrics
from mae_bench.core.batches import Batches, Order, Share, loader
from mae_bench.core.errors import ConfigError, Diverged, EnvironmentFault, InputError, Stopped
from mae_bench.core.files import write_json
from mae_bench.core.optim import build_optimizer, parameter_groups, set_lr, set_weight_decay
from mae_bench.core.run import Run
from mae_bench.core.samples import Skipped
from mae_bench.core.seeding import seed_all
from mae_bench.core.signals import StopRequest, stop_on_signal
from mae_bench.core.training import LOGGED, Trained, Training

__all__ = ["Diverged", "Trained", "Training", "to_device", "train"]

log = logging.getLogger(__name__)

STEPS_BETWEEN_READS = 10
"""Losses are read from an accelerator this often, since each read waits for it; on a CPU every step is read."""


def train(training: Training, run: Run) -> Trained:
    """Train to the end, going on from the last saved state in `run.checkpoints` if there is one.

    Raises:
        InputError: the data set is smaller than one batch.
        ConfigError: the saved state is of a training with other settings.
        Diverged: the loss or a weight is no longer finite.
        EnvironmentFault: memory runs out and micro-batches cannot be halved.
        Stopped: a signal came; the state is saved.
    """
    session = _Session(training, run)
    with stop_on_signal() as request:
        session.resume()
        session.go_on(request)
    return session.finish()


class _Session:
    """One process's part of a training, from where it starts or resumes to where it ends or is stopped."""

    def __init__(self, training: Training, run: Run) -> None:
        self.training, self.run = training, run
        precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[run.precision]
        self.accelerator = Accelerator(mixed_precision=cast(Literal["no"], precision), cpu=run.device == "cpu")
        self.share = Share(self.accelerator.process_index, self.accelerator.num_processes, training.accumulate)
        self.order = Order(len(training.dataset), training.batch_size, run.seed, training.drop_last)
        _check_sizes(training, self.share)
        self.skipped = Skipped(run.out, len(training.dataset), run.max_skipped)
        groups = parameter_groups(
            training.model, training.optim, layer_id=training.layer_id, depth=training.depth, no_decay=training.no_decay
        )
        if training.compile:
            training.model.compile()
        self.model, self.optimizer = self.accelerator.prepare(training.model, build_optimizer(groups, training.optim))
        self.average = _average(self.accelerator.unwrap_model(self.model), training.average_decay)
        self.step = 0
        self.seconds = 0.0
        self.unread: list[tuple[int, float, dict[str, Tensor]]] = []
        self.latest = math.nan
        self.clock = time.monotonic()

    def resume(self) -> None:
        """Load the newest saved state, if any, and forget what was logged after it."""
        found = checkpoint.load(self.run.checkpoints, self.training.key, torch.device("cpu"))
        if found is not None:
            state, manifest = found
            self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.share = replace(self.share, accumulate=state["accumulate"])
            self.step, self.seconds = manifest.step, manifest.seconds
            log.info("going on from step %d of %d", self.step, self.training.steps)
        if self.accelerator.is_main_process:
            metrics.cut(self.run.out, self.step)
            if self.step == 0:
                self.skipped.forget()

    def go_on(self, request: StopRequest) -> None:
        """Make the remaining steps."""
        training, run = self.training, self.run
        self.clock = time.monotonic()
        saved = self.clock
        source = self._micro_batches()
        self.model.train()
        run.reporter.start(training.title, training.steps, self.step)
        while self.step < training.steps:
            try:
                self._make_step(source)
            except torch.OutOfMemoryError as error:
                self._halve_micro_batches(error)
                source = self._micro_batches()
                continue
            run.reporter.advance(note=self._note())
            if self._asked_to_stop(request):
                self._save()
                raise Stopped(f"stopped by a signal at step {self.step} of {training.steps}; the same command goes on from there")
            if time.monotonic() - saved > run.save_seconds and self.step < training.steps:
                self._save()
                saved = time.monotonic()

    def finish(self) -> Trained:
        """Save the end state, so that what follows the training can be repeated without it."""
        self.accelerator.wait_for_everyone()
        self._check_weights()
        self._save()
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return Trained(
            losses=metrics.read(self.run.out, "loss"),
            seconds=self.seconds,
            samples=self.training.steps * self.training.batch_size,
            accumulate=self.share.accumulate,
            average=None if self.average is None else self.average.module,
        )

    def _micro_batches(self) -> Iterator[Any]:
        """What is left of the training's micro-batches, in their order."""
        training, run = self.training, self.run
        batches = Batches(self.order, self.step, training.steps, self.share)
        return iter(loader(training.dataset, training.collate, batches, seed=run.seed, workers=run.workers, skipped=self.skipped))

    def _make_step(self, source: Any) -> None:
        training, step = self.training, self.step
        lr = training.optim.lr * training.schedule.factor(step, training.steps)
        set_lr(self.optimizer, lr)
        set_weight_decay(self.optimizer, training.optim, step, training.steps)
        if training.before_step is not None:
            training.before_step(step)
        terms: dict[str, Tensor] = {}
        for part in range(self.share.accumulate):
            batch = to_device(next(source), self.accelerator.device)
            seed_all(self.run.seed, "step", step, part, self.share.rank)
            last = part == self.share.accumulate - 1
            with self._synchronised(last):
                losses = self.model(batch)
                minimised = [value.float() for name, value in losses.items() if not name.startswith(LOGGED)]
                total = torch.stack(minimised).sum() / self.share.accumulate
                self.accelerator.backward(total)
            for name, value in losses.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + value.detach() / self.share.accumulate
        if training.optim.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), training.optim.clip_grad)
        fault = faults.visit("engine.step")
        if fault == "oom":
            raise torch.OutOfMemoryError("injected")
        if fault == "nan":
            terms = {name: value * math.nan for name, value in terms.items()}
        self.unread.append((step, lr, terms))
        if self.accelerator.device.type == "cpu" or len(self.unread) >= STEPS_BETWEEN_READS:
            self._read()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        self.step += 1

    def _halve_micro_batches(self, error: torch.OutOfMemoryError) -> None:
        """Make the step again in twice as many parts; what is optimised stays the same."""
        training, share = self.training, self.share
        size = training.batch_size // (share.world * share.accumulate)
        # Other processes are in the middle of the same step and cannot be told.
        whole = training.split_unit and size % (2 * training.split_unit) == 0
        if not whole or share.world > 1:
            advice = f"set accumulate={2 * share.accumulate}" if training.split_unit and size > 1 else "lower batch_size"
            raise EnvironmentFault(f"{training.title}: no memory for {size} samples at once; {advice}") from error
        self.optimizer.zero_grad()
        self.share = replace(share, accumulate=2 * share.accumulate)
        torch.cuda.empty_cache()
        log.warning("no memory for %d samples at once; going on with %d", size, size // 2)

    def _synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged between processes once a step, with its last micro-batch."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def _read(self) -> None:
        """Log the losses not read yet, and stop where one is not finite."""
        for step, lr, terms in self.unread:
            numbers = self._over_processes(terms)
            total = sum(value for name, value in numbers.items() if not name.startswith(LOGGED))
            if not math.isfinite(total):
                self._explain_divergence(step, numbers)
            if self.accelerator.is_main_process:
                self.run.log(step=step, loss=total, lr=lr, **(numbers if len(numbers) > 1 else {}))
            self.latest = total
        self.unread.clear()

    def _over_processes(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Loss terms as numbers, averaged over the processes, so that all of them see the same."""
        values = torch.stack([value.float() for value in terms.values()])
        if self.accelerator.num_processes > 1:
            values = cast(Tensor, self.accelerator.reduce(values, reduction="mean"))
        return dict(zip(terms, values.tolist(), strict=True))

    def _check_weights(self) -> None:
        """See that the last step left no weight that is not finite; the loss would have told of the steps before."""
        for name, parameter in self.accelerator.unwrap_model(self.model).named_parameters():
            if not bool(parameter.isfinite().all()):
                raise Diverged(f"{self.training.title}: {name} is not finite after the last step")

    def _explain_divergence(self, step: int, numbers: dict[str, float]) -> None:
        place = self.run.out / "diverged.json"
        terms = {name: str(value) for name, value in numbers.items()}
        write_json(place, {"step": step, "terms": terms, "samples": [index for _, index in self.order.batch(step)]})
        raise Diverged(f"{self.training.title}: the loss is not finite at step {step}; loss terms and samples are in {place}")

    def _note(self) -> str:
        return "" if math.isnan(self.latest) else f"loss {self.latest:.4f}"

    def _asked_to_stop(self, request: StopRequest) -> bool:
        """All processes agree, so that none waits for one that has left."""
        if self.accelerator.num_processes == 1:
            return bool(request)
        asked = torch.tensor(float(bool(request)), device=self.accelerator.device)
        return float(cast(Tensor, self.accelerator.reduce(asked, reduction="sum"))) > 0

    def _save(self) -> None:
        self._read()
        now = time.monotonic()
        self.seconds += now - self.clock
        self.clock = now
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "average": self.average.state_dict() if self.average is not None else {},
            "accumulate": self.share.accumulate,
        }
        checkpoint.save(self.run.checkpoints, state, checkpoint.Manifest(self.training.key, self.step, self.seconds))


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
    return average.requires_grad_(False)


def _check_sizes(training: Training, share: Share) -> None:
    size, parts = len(training.dataset), share.world * share.accumulate
    if size == 0 or (training.drop_last and size < training.batch_size):
        raise InputError(f"{training.title}: {size} training samples for a batch of {training.batch_size}; lower batch_size")
    if training.batch_size % parts:
        raise ConfigError(f"{training.title}: batch_size {training.batch_size} does not divide into {parts} micro-batches")
    if training.steps < 1:
        raise ConfigError(f"{training.title}: a training of {training.steps} steps; set at least 1")


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors inside dicts, lists and tuples; anything else is left as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
