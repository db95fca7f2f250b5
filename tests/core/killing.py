"""Trainings killed by SIGKILL in every step, one real child process after another."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from mae_bench.core import faults
from mae_bench.core.run import Run

STOPS = 25
WORKERS = (0, 2, 4)
"""Data loading processes, in turns: the step after a stop is made with another number of them."""


def killed_in_every_step(work: Callable[[Run], Any], out: Path, *, seed: int = 0, stops: int = STOPS) -> Run:
    """Kill a training in its first step, go on and kill it in the second, and so on.

    Args:
        work: makes the training of a run or goes on with it.
        out: folder of the run.
        seed: of the run.
        stops: children.

    Returns:
        The run, for its end in this process.
    """
    for stop in range(stops):
        run = Run(out, seed=seed, workers=WORKERS[stop % len(WORKERS)], save_seconds=0.0)
        # The first child is killed before anything is saved; each later one saves a step and is killed in the next.
        status = in_child(lambda run=run: work(run), f"engine.step:kill:{min(2, stop + 1)}")
        assert status == -signal.SIGKILL, f"stop {stop}: exit status {status}"
    return Run(out, seed=seed, save_seconds=0.0)


def in_child(work: Callable[[], Any], fault: str) -> int:
    """Work in a forked process with a fault in it, and give its exit status as `os.waitstatus_to_exitcode` does."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the threads of the parent are not in the child, which would wait for them
        AcceleratorState._reset_state(reset_partial_state=True)  # else its number format would be that of tests before
        os.environ[faults.VARIABLE] = fault
        faults._visits.clear()
        try:
            work()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def end_state(run: Run) -> dict[str, Any]:
    """What a finished training has saved, by name: weights, optimizer, averages."""
    return _flat(torch.load(run.checkpoints / "last" / "state.pt", weights_only=True))


def assert_equal_states(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
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
