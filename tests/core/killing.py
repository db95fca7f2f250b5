"""Trainings in forked processes with faults in them; trainings killed by SIGKILL in every step, one child after another."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from mae_bench.core import faults, metrics
from mae_bench.core.errors import MaeBenchError
from mae_bench.core.run import Run

STOPS = 25
WORKERS = (0, 2, 4)
"""Data loading processes, in turns: the step after a stop is made with another number of them."""


def assert_kills_change_nothing(work: Callable[[Run], Any], folder: Path, *, seed: int = 0) -> list[float]:
    """Train once unbroken and once killed in each of the first `STOPS` steps: results, weights and losses are the same.

    Args:
        work: makes the training of a run or goes on with it, and gives what comes out.
        folder: for both runs.
        seed: of both.

    Returns:
        The losses of the steps.
    """
    whole = Run(folder / "whole", seed=seed)
    found = work(whole)
    cut = _killed_in_every_step(work, folder / "cut", seed)
    assert work(cut) == found
    _assert_equal(_end_state(cut), _end_state(whole))
    losses = metrics.read(whole.out, "loss")
    assert metrics.read(cut.out, "loss") == losses
    return losses


def _killed_in_every_step(work: Callable[[Run], Any], out: Path, seed: int) -> Run:
    """Kill a training in its first step, go on and kill it in the second, and so on; gives the run, to be ended here."""
    for stop in range(STOPS):
        run = Run(out, seed=seed, workers=WORKERS[stop % len(WORKERS)], save_seconds=0.0)
        # The first child is killed before anything is saved; each later one saves a step and is killed in the next.
        status = in_child(lambda run=run: work(run), f"engine.step:kill:{min(2, stop + 1)}")
        assert status == -signal.SIGKILL, f"stop {stop}: exit status {status}"
    return Run(out, seed=seed, save_seconds=0.0)


def in_child(work: Callable[[], Any], fault: str = "") -> int:
    """Work in a forked process, as a kill needs one to hit, and give its exit status; see `forked` and `status_of`."""
    return status_of(forked(work, fault))


def forked(work: Callable[[], Any], fault: str = "") -> int:
    """Start work in a forked process with a fault in it, and give its process id.

    It ends with 0 when the work is done, with the code of an error of the suite, with 1 for any other.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)  # the threads of the parent are not in the child, which would wait for them
        AcceleratorState._reset_state(reset_partial_state=True)  # else its number format would be that of tests before
        os.environ[faults.VARIABLE] = fault
        faults._visits.clear()
        work()
        code = 0
    except BaseException as error:
        code = error.exit_code if isinstance(error, MaeBenchError) else 1
        traceback.print_exc()
    finally:
        os._exit(code)


def status_of(child: int) -> int:
    """The exit status of a process once it ends, negative for a signal, as `os.waitstatus_to_exitcode` gives it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _end_state(run: Run) -> dict[str, Any]:
    """What a finished training has saved, by name: weights, optimizer, averages."""
    return _flat(torch.load(run.checkpoints / "last" / "state.pt", weights_only=True))


def _assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Bit for bit."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
        assert same, name


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: one for part, inner in value.items() for key, one in _flat(inner, f"{name}.{part}").items()}
    if isinstance(value, list | tuple):
        return {key: one for part, inner in enumerate(value) for key, one in _flat(inner, f"{name}.{part}").items()}
    return {name: value}
