"""The one training engine: pretraining and every task that trains go through `train`.

It knows nothing of what is trained. Randomness is keyed by counters and the whole state is saved, so that a run cut at any
moment and started again ends in the same weights, bit for bit, on the same machine.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mae_bench.core import checkpoint, faults, metrics
from mae_bench.core.batches import Batches, Order, Share, loader
from mae_bench.core.board import Board
from mae_bench.core.errors import ConfigError, Diverged, EnvironmentFault, InputError, Stopped
from mae_bench.core.files import write_json
from mae_bench.core.optim import set_lr, set_weight_decay
from mae_bench.core.parallel import Parallel
from mae_bench.core.run import Run
from mae_bench.core.samples import Skipped
from mae_bench.core.seeding import seed_all
from mae_bench.core.signals import StopRequest, stop_on_signal
from mae_bench.core.training import LOGGED, Trained, Training
from mae_bench.core.waiting import Waiting

__all__ = ["Diverged", "Trained", "Training", "to_device", "train"]

log = logging.getLogger(__name__)

STEPS_BETWEEN_READS = 10
"""Losses are read from an accelerator this often, and other processes asked whether to stop or to save, since each read waits
for it; on a CPU it is every step."""
WORTH_SAYING = 0.05
"""Share of the time that waiting for data has to take to be shown beside the loss."""


def train(training: Training, run: Run) -> Trained:
    """Train to the end, going on from the last saved state in `run.checkpoints` if there is one.

    Raises:
        InputError: the data set is smaller than one batch.
        ConfigError: the saved state is of a training with other settings, or of a number of processes that shapes the loss.
        Diverged: the loss or a weight is no longer finite.
        EnvironmentFault: memory runs out and micro-batches cannot be halved, or a data loading process dies.
        Stopped: a signal came or the time of the run is over; the state is saved.
    """
    session = _Session(training, run)
    with stop_on_signal(run.deadline) as request:
        session.resume()
        try:
            session.go_on(request)
        except Exception as error:  # torch's handler of SIGCHLD raises wherever this process is; what it cuts off may say more
            if not _tells_of_worker(error):
                raise
            why = "memory ran out, or a decoder crashed; lower --workers, and 0 of them shows the image"
            raise EnvironmentFault(f"{training.title}: a data loading process died: {why}") from error
    return session.finish()


def _tells_of_worker(error: BaseException | None) -> bool:
    """Whether a data worker's death is behind an error: what it interrupts, such as a write, may put one of its own before it."""
    while error is not None:
        if "DataLoader worker" in str(error):
            return True
        error = error.__context__
    return False


class _Session:
    """One process's part of a training, from where it starts or resumes to where it ends or is stopped."""

    def __init__(self, training: Training, run: Run) -> None:
        self.training, self.run = training, run
        self.parallel = Parallel(training, run)
        self.share = Share(self.parallel.rank, self.parallel.world, training.accumulate)
        self.order = Order(len(training.dataset), training.batch_size, run.seed, training.drop_last)
        _check_sizes(training, self.share)
        self.skipped = Skipped(run.out, len(training.dataset), run.max_skipped)
        self.board: Board | None = None
        self.step = 0
        self.seconds = 0.0
        self.unread: list[tuple[int, float, dict[str, Tensor]]] = []
        self.latest = math.nan
        self.clock = time.monotonic()
        self.waiting = Waiting()

    def resume(self) -> None:
        """Load the newest saved state, if any, and forget what was logged after it."""
        found = checkpoint.load(self.run.checkpoints, self.training.key, torch.device("cpu"))
        if found is not None:
            state, manifest = found
            self.share = replace(self.share, accumulate=state["accumulate"])
            _check_world(self.training, self.share, state["world"])
            self.parallel.load(state)
            self.step, self.seconds = manifest.step, manifest.seconds
            log.info("going on from step %d of %d", self.step, self.training.steps)
        if self.parallel.is_main:
            metrics.cut(self.run.out, self.step)
            if self.step == 0:
                self.skipped.forget()
            if self.run.tensorboard:
                self.board = Board(self.run.out, self.step)

    def go_on(self, request: StopRequest) -> None:
        """Make the remaining steps."""
        training, run = self.training, self.run
        self.clock = time.monotonic()
        run.reporter.start(training.title, training.steps, self.step)
        self._after_step()
        saved = self.clock
        source = self._micro_batches()
        self.parallel.model.train()
        while self.step < training.steps:
            try:
                self._make_step(source)
            except torch.OutOfMemoryError as error:
                self._halve_micro_batches(error)
                source = self._micro_batches()
                continue
            run.reporter.advance(note=self._note())
            self._after_step()
            if not self._reads():
                continue
            stop, save = self.parallel.any_of(bool(request), time.monotonic() - saved > run.save_seconds)
            if stop:
                self._save()
                raise Stopped(
                    f"stopped by {request.why} at step {self.step} of {training.steps}; the same command goes on from there"
                )
            if save and self.step < training.steps:
                self._save()
                saved = time.monotonic()

    def finish(self) -> Trained:
        """Save the end state, so that what follows the training can be repeated without it."""
        self.parallel.check_weights()
        state = self._save()
        if self.board is not None:
            self.board.close()
        average = self.parallel.average
        return Trained(
            model=self.parallel.trained(state),
            losses=metrics.read(self.run.out, "loss"),
            seconds=self.seconds,
            samples=self.training.steps * self.training.batch_size,
            accumulate=self.share.accumulate,
            average=None if average is None else average.module,
        )

    def _micro_batches(self) -> Iterator[Any]:
        """What is left of the training's micro-batches, in their order."""
        training, run = self.training, self.run
        batches = Batches(self.order, self.step, training.steps, self.share)
        return iter(loader(training.dataset, training.collate, batches, seed=run.seed, workers=run.workers, skipped=self.skipped))

    def _make_step(self, source: Any) -> None:
        training, parallel, step = self.training, self.parallel, self.step
        lr = training.optim.lr * training.schedule.factor(step, training.steps)
        set_lr(parallel.optimizer, lr)
        set_weight_decay(parallel.optimizer, training.optim, step, training.steps)
        if training.before_step is not None:
            training.before_step(step)
        terms: dict[str, Tensor] = {}
        for part in range(self.share.accumulate):
            batch = to_device(self.waiting.next(source), parallel.device)
            seed_all(self.run.seed, "step", step, part, self.share.rank)
            with parallel.synchronised(part == self.share.accumulate - 1):
                losses = parallel.model(batch)
                minimised = [value.float() for name, value in losses.items() if not name.startswith(LOGGED)]
                total = torch.stack(minimised).sum() / self.share.accumulate
                parallel.accelerator.backward(total)
            for name, value in losses.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + value.detach() / self.share.accumulate
        if training.optim.clip_grad is not None:
            parallel.clip(training.optim.clip_grad)
        fault = faults.visit("engine.step")
        if fault == "oom":
            raise torch.OutOfMemoryError("injected")
        if fault == "nan":
            terms = {name: value * math.nan for name, value in terms.items()}
        self.unread.append((step, lr, terms))
        self.waiting.count(training.batch_size)
        if self._reads():
            self._read()
        parallel.update()
        self.step += 1

    def _reads(self) -> bool:
        """Whether losses are read at this step; the same in every process."""
        return self.parallel.device.type == "cpu" or self.step % STEPS_BETWEEN_READS == 0

    def _halve_micro_batches(self, error: torch.OutOfMemoryError) -> None:
        """Make the step again in twice as many parts; what is optimised stays the same."""
        training, share = self.training, self.share
        size = training.batch_size // (share.world * share.accumulate)
        # Other processes are in the middle of the same step and cannot be told.
        whole = training.split_unit and size % (2 * training.split_unit) == 0
        if not whole or share.world > 1:
            advice = f"set accumulate={2 * share.accumulate}" if training.split_unit and size > 1 else "lower batch_size"
            raise EnvironmentFault(f"{training.title}: no memory for {size} samples at once; {advice}") from error
        self.parallel.optimizer.zero_grad()
        self.share = replace(share, accumulate=2 * share.accumulate)
        torch.cuda.empty_cache()
        log.warning("no memory for %d samples at once; going on with %d", size, size // 2)

    def _read(self) -> None:
        """Log the losses not read yet, and stop where one is not finite."""
        for step, lr, terms in self.unread:
            numbers = self.parallel.numbers(terms)
            total = sum(value for name, value in numbers.items() if not name.startswith(LOGGED))
            if not math.isfinite(total):
                self._explain_divergence(step, numbers)
            waited = self.waiting.numbers() if step == self.unread[-1][0] else {}
            self._log({"step": step, "loss": total, "lr": lr, **(numbers if len(numbers) > 1 else {}), **waited})
            self.latest = total
        self.unread.clear()

    def _explain_divergence(self, step: int, numbers: dict[str, float]) -> None:
        place = self.run.out / "diverged.json"
        terms = {name: str(value) for name, value in numbers.items()}
        write_json(place, {"step": step, "terms": terms, "samples": [index for _, index in self.order.batch(step)]})
        raise Diverged(f"{self.training.title}: the loss is not finite at step {step}; loss terms and samples are in {place}")

    def _note(self) -> str:
        waits = f", {self.waiting.share:.0%} waiting for data" if self.waiting.share >= WORTH_SAYING else ""
        return "" if math.isnan(self.latest) else f"loss {self.latest:.4f}{waits}"

    def _log(self, line: dict[str, float]) -> None:
        """Write numbers of a step into `metrics.jsonl`, in the main process."""
        if self.parallel.is_main:
            self.run.log(**line)
            if self.board is not None:
                self.board.add(line)

    def _after_step(self) -> None:
        """Call what wants to look at the weights, and log what it finds; its time is no part of the training's."""
        if self.training.after_step is None or self.step == 0:
            return
        started = time.monotonic()
        average = self.parallel.average
        try:
            found = self.training.after_step(self.step, self.parallel.module if average is None else average.module)
        except Stopped:
            self.clock += time.monotonic() - started
            self._save()
            raise
        if found:
            self._read()
            self._log({"step": self.step - 1, **found})
        taken = time.monotonic() - started
        self.clock += taken
        self.waiting.leave_out(taken)

    def _save(self) -> dict[str, Any] | None:
        """Save the state and give it, in the main process; all take part."""
        self._read()
        now = time.monotonic()
        self.seconds += now - self.clock
        self.clock = now
        if self.board is not None:
            self.board.flush()
        state = self.parallel.state()
        if state is not None:
            manifest = checkpoint.Manifest(self.training.key, self.step, self.seconds)
            checkpoint.save(self.run.checkpoints, {**state, "accumulate": self.share.accumulate}, manifest)
        return state


def _check_sizes(training: Training, share: Share) -> None:
    size, parts = len(training.dataset), share.world * share.accumulate
    if size == 0 or (training.drop_last and size < training.batch_size):
        raise InputError(f"{training.title}: {size} training samples for a batch of {training.batch_size}; lower batch_size")
    if training.batch_size % parts:
        raise ConfigError(f"{training.title}: batch_size {training.batch_size} does not divide into {parts} micro-batches")
    if training.steps < 1:
        raise ConfigError(f"{training.title}: a training of {training.steps} steps; set at least 1")


def _check_world(training: Training, share: Share, before: int) -> None:
    """See that as many processes as there are now can go on with what another number of them began."""
    begun = f"{training.title}: {before} processes began this training, and here are {share.world}"
    if share.world != before and not training.split_unit:
        raise ConfigError(f"{begun}; the images of one process shape its loss: start {before}, or choose another -o")
    if training.batch_size % (share.world * share.accumulate):
        parts = f"{share.world} processes of {share.accumulate} micro-batches each"
        raise ConfigError(f"{begun}; batch_size {training.batch_size} does not divide into {parts}")


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors inside dicts, lists and tuples; anything else is left as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
