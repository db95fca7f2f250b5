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
from mae_bench.core.batches import Batches, Order, Share, deaths_told, loader, to_device
from mae_bench.core.board import Board
from mae_bench.core.errors import Diverged, Stopped
from mae_bench.core.files import write_json
from mae_bench.core.optim import set_lr, set_weight_decay
from mae_bench.core.parallel import Parallel
from mae_bench.core.run import Run
from mae_bench.core.samples import Skipped
from mae_bench.core.seeding import seed_all
from mae_bench.core.signals import StopRequest, stop_on_signal
from mae_bench.core.training import LOGGED, Trained, Training, check_sizes, check_world, halved
from mae_bench.core.waiting import Waiting

__all__ = ["Diverged", "Trained", "Training", "to_device", "train"]

log = logging.getLogger(__name__)

STEPS_BETWEEN_READS = 10
"""Losses are read from an accelerator this often, since each read waits for it, and where there are several processes they agree
this often whether to stop or to save; on a CPU it is every step."""


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
        with deaths_told(training.title):
            session.go_on(request)
    return session.finish()


class _Session:
    """One process's part of a training, from where it starts or resumes to where it ends or is stopped."""

    def __init__(self, training: Training, run: Run) -> None:
        self.training, self.run = training, run
        self.parallel = Parallel(training, run)
        self.share = Share(self.parallel.rank, self.parallel.world, training.accumulate)
        self.order = Order(len(training.dataset), training.batch_size, run.seed, training.drop_last)
        check_sizes(training, self.share)
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
            check_world(self.training, self.share, state["world"])
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
            stop, save = bool(request), time.monotonic() - saved > run.save_seconds
            if self.parallel.world > 1:
                if not self._reads():
                    continue
                stop, save = self.parallel.any_of(stop, save)
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
            parallel.clip(training.optim.clip_grad, each=training.clip_each)
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
        self.share = halved(self.training, self.share, error)
        self.parallel.optimizer.zero_grad()
        torch.cuda.empty_cache()
        size = self.training.batch_size // (self.share.world * self.share.accumulate)
        log.warning("no memory for %d samples at once; going on with %d", 2 * size, size)

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
        return "" if math.isnan(self.latest) else f"loss {self.latest:.4f}{self.waiting.words}"

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
