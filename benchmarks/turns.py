"""Contenders in processes of their own that take turns on one thread; CPU time, which a neighbour on the machine cannot steal."""

import ctypes
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

Numbers = float | tuple[float, ...]
"""What contenders are expected to agree on, such as the loss."""
Step = Callable[[], Numbers]
"""Makes one step and gives the numbers of it."""


class Result(NamedTuple):
    """What a contender's steps cost."""

    seconds: list[float]
    """CPU time of each step."""
    numbers: list[Numbers]
    """What each step gave."""
    memory: float
    """Peak of memory over the built model, in MB."""


def take_turns(contenders: Sequence[str], build: Callable[[str], Step], rounds: int) -> dict[str, Result]:
    """Measure steps of every contender in turns, after a round that does not count.

    Args:
        contenders: names.
        build: makes a contender's step, in its own process; a function at the top of a module.
        rounds: measured steps of each.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in contenders:
        here, there = context.Pipe()
        context.Process(target=_work, args=(build, name, there), daemon=True).start()
        there.close()
        pipes[name] = here
        here.recv()
    found: dict[str, tuple[list[float], list[Numbers]]] = {name: ([], []) for name in contenders}
    for number in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send("step")
            seconds, value = pipe.recv()
            if number:
                found[name][0].append(seconds)
                found[name][1].append(value)
    results = {}
    for name, pipe in pipes.items():
        pipe.send("end")
        results[name] = Result(*found[name], pipe.recv())
    return results


def print_ratios(results: dict[str, Result], first: str) -> None:
    """One line a contender: its time and memory, and how many times faster than `first` it is (median over the rounds)."""
    base = results[first]
    print(f"{'':24}{'CPU s':>9}{'times as fast':>15}{'of the best':>13}{'MB':>8}{'share':>7}  first numbers")
    for name, result in results.items():
        ratio = statistics.median(theirs / mine for theirs, mine in zip(base.seconds, result.seconds, strict=True))
        best = min(base.seconds) / min(result.seconds)
        median, memory, given = statistics.median(result.seconds), result.memory, result.numbers[0]
        numbers = " ".join(f"{number:.7g}" for number in (given if isinstance(given, tuple) else (given,)))
        share = memory / base.memory
        print(f"{name:24}{median:9.3f}{ratio:15.2f}{best:13.2f}{memory:8.0f}{share:7.2f}  {numbers}")


def _work(build: Callable[[str], Step], name: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    step = build(name)
    ctypes.CDLL(None).malloc_trim(0)  # what building left over would hide as much of the peak
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is used now
    before = _memory("VmRSS")
    pipe.send("ready")
    while pipe.recv() == "step":
        started = time.process_time()
        value = step()
        pipe.send((time.process_time() - started, value))
    pipe.send((_memory("VmHWM") - before) / 1024)


def _memory(field: str) -> int:
    """A field of this process's memory, in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
