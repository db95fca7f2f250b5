"""How a run uses its machine: device, precision, cores and jobs. None of it belongs to a cell's key."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mae_bench.core.config import parse_assignments
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.environment import cores

DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "bf16", "fp16")
LAUNCHERS = ("local", "slurm")
OVERWRITE = ("failed", "always")
SAVE_SECONDS = 60.0
"""Time between two saved states of a training unless asked otherwise."""
MAX_SKIPPED = 0.001
"""Share of the training images that may be damaged unless asked otherwise."""
MOST_SUBMITTED = 100
"""Jobs in a cluster's queue at a time unless asked otherwise."""
MOST_JOBS = 2
"""Cells run at a time on a CPU unless asked otherwise: more of them want more memory than most machines have."""


@dataclass(frozen=True)
class Options:
    """How cells are run."""

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    workers: int = 0
    jobs: int = 1
    save_seconds: float = SAVE_SECONDS
    max_skipped: float = MAX_SKIPPED
    """Share of the training images that may be damaged and left out, 0 to 1."""
    debug: bool = False
    overwrite: str = ""
    """`failed`: failed cells start from the beginning; `always`: all do; else only what is missing runs."""
    allow_partial: bool = False
    """Whether tensors that a checkpoint lacks may start at random."""
    export_native: bool = False
    """Whether the native config of a cell is written beside its record, where its task has one."""
    launcher: str = "local"
    """Where cells run: here, or on a `slurm` cluster."""
    slurm: tuple[tuple[str, str], ...] = ()
    """Settings of the cluster's jobs, by submitit's names."""
    gpus_per_cell: int = 1
    time_limit: float | None = None
    """Seconds that one cell may run at a time; it is stopped then, and goes on with the next run."""
    given: frozenset[str] = frozenset()
    """Names of the options above that a person has set; the others were chosen for this machine."""


def make_options(
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    jobs: int | None = None,
    save_every: str | None = None,
    max_skipped: float | None = None,
    debug: bool = False,
    overwrite: str = "",
    allow_partial: bool = False,
    export_native: bool = False,
    time_limit: str | None = None,
    launcher: str = "local",
    slurm: Sequence[str] = (),
    gpus_per_cell: int = 1,
) -> Options:
    """Fill in what the machine decides: the device, and how many jobs share its cores.

    Raises:
        ConfigError: a value that cannot be.
        EnvironmentFault: a device that this machine lacks.
    """
    asked = {"device": device, "precision": precision, "threads": threads, "workers": workers, "jobs": jobs}
    asked |= {"save_seconds": save_every, "max_skipped": max_skipped, "debug": debug or None}
    cluster = slurm_settings(launcher, slurm)
    check_words(device, precision, threads, workers, jobs, overwrite, (time_limit, save_every))
    place = choose_device(device)
    if gpus_per_cell < 1 or (launcher == "local" and gpus_per_cell > max(1, gpus() if place == "cuda" else 1)):
        there = f"{gpus()} GPUs" if place == "cuda" else "none"
        raise EnvironmentFault(f"--gpus-per-cell {gpus_per_cell}: this machine has {there}; ask for what there is")
    parallel = jobs or _parallel(place, launcher, gpus_per_cell)
    return Options(
        device=place,
        precision=choose_precision(precision, place),
        threads=threads or max(1, cores() // parallel),
        workers=workers or 0,
        jobs=parallel,
        save_seconds=SAVE_SECONDS if save_every is None else parse_time(save_every),
        max_skipped=MAX_SKIPPED if max_skipped is None else max_skipped,
        debug=debug,
        overwrite=overwrite,
        allow_partial=allow_partial,
        export_native=export_native,
        launcher=launcher,
        slurm=tuple((cluster or {}).items()),
        gpus_per_cell=gpus_per_cell,
        time_limit=None if time_limit is None else parse_time(time_limit),
        given=frozenset(name for name, value in asked.items() if value is not None),
    )


def slurm_settings(launcher: str, words: Sequence[str] | None) -> dict[str, str] | None:
    """Settings of a cluster's jobs by submitit's names; None where work is done here.

    Raises:
        ConfigError: an unknown launcher, or settings of a cluster that is not asked for.
    """
    if launcher not in LAUNCHERS or (words and launcher != "slurm"):
        raise ConfigError(f"--launcher {launcher!r}; use {' or '.join(LAUNCHERS)}, and --slurm with slurm alone")
    return parse_assignments(list(words or ())) if launcher == "slurm" else None


def _parallel(device: str, launcher: str, gpus_per_cell: int) -> int:
    """Cells run at a time unless asked otherwise."""
    if launcher == "slurm":
        return MOST_SUBMITTED
    return max(1, gpus() // gpus_per_cell) if device == "cuda" else min(MOST_JOBS, cores())


def parse_time(text: str) -> float:
    """Seconds of `90`, `45s`, `30m`, `12h`, `1d` or such joined together, `1h30m`.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    parts = [int(part or 0) for part in found.groups()] if found else []
    seconds = sum(part * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=False))
    if not seconds:
        raise ConfigError(f"{text!r} is no time; write for example 90s, 30m or 1h30m")
    return float(seconds)


def check_words(
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    jobs: int | None = None,
    overwrite: str = "",
    times: Sequence[str | None] = (),
) -> None:
    """Refuse values that no machine can have; torch, which takes seconds to load, is not needed for it.

    Raises:
        ConfigError: the first of them.
    """
    known = (("--device", device, DEVICES), ("--precision", precision, PRECISIONS), ("--overwrite", overwrite or None, OVERWRITE))
    for flag, word, words in known:
        if word is not None and word not in words:
            raise ConfigError(f"{flag} {word!r}; use {' or '.join(words)}")
    for flag, number, least in (("--jobs", jobs, 1), ("--threads", threads, 1), ("--workers", workers, 0)):
        if number is not None and number < least:
            raise ConfigError(f"{flag} {number}; give at least {least}")
    for text in times:
        if text is not None:
            parse_time(text)


def choose_device(asked: str | None) -> str:
    """The device asked for, or the best there is."""
    from mae_bench.core.run import default_device

    if asked is None:
        return default_device()
    check_words(device=asked)
    lacking = lacking_device(asked)
    if lacking:
        raise EnvironmentFault(lacking)
    return asked


def lacking_device(device: str) -> str:
    """The line about a device that this machine lacks; empty where it has it."""
    from mae_bench.core.run import default_device

    if device != "cuda" or default_device() == "cuda":
        return ""
    return "device cuda, but torch sees none here; use --device cpu, or see mae-bench doctor"


def choose_precision(asked: str | None, device: str) -> str:
    """The precision asked for; else bf16 where it is fast, and fp32 on a CPU."""
    check_words(precision=asked)
    return asked or ("bf16" if device == "cuda" else "fp32")


def gpus() -> int:
    """Number of GPUs torch sees."""
    import torch

    return torch.cuda.device_count()


def slots(options: Options) -> list[dict[str, str]]:
    """The environment of each place a job can run in: its threads, and one GPU each where there are several."""
    threads = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    count = gpus() if options.device == "cuda" else 0
    if count < 2 or options.launcher == "slurm":
        return [threads] * options.jobs
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = given.split(",") if given else [str(number) for number in range(count)]
    each = options.gpus_per_cell
    groups = [names[first : first + each] for first in range(0, count - each + 1, each)]
    return [{**threads, "CUDA_VISIBLE_DEVICES": ",".join(groups[number % len(groups)])} for number in range(options.jobs)]
