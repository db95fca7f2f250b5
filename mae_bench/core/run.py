"""The context of one run: where it writes, on what it computes, and how it tells how far it is."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mae_bench.core import metrics
from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.progress import Reporter, Silent


@dataclass(frozen=True)
class Run:
    """Everything a task or a pretraining needs to know about its surroundings."""

    out: Path
    """Folder of this run; `ckpt/`, `metrics.jsonl` and pictures go below it."""
    seed: int = 0
    device: str = "cpu"
    """`cpu` or `cuda` (torch device type)."""
    precision: str = "fp32"
    """`fp32`, `bf16` or `fp16` (autocast of accelerate)."""
    threads: int = 1
    """Intra-op threads of torch; part of what makes CPU numbers repeatable."""
    workers: int = 0
    """Data loading processes; the numbers do not depend on it."""
    save_seconds: float = 60.0
    """Time between two checkpoints of a training, in seconds."""
    max_skipped: float = 0.001
    """Share of the training images that may be damaged, rounded up to whole images: they are left out and named in
    `skipped.jsonl`. Images of an evaluation are never left out."""
    sharded: bool = False
    """Whether weights, gradients and optimizer state are cut over the processes of a training (FSDP2); for models that one GPU
    cannot hold. Checkpoints are the same files as without."""
    deadline: float | None = None
    """Value of `time.monotonic` from which on a training saves its state and stops, as by a signal; None runs to the end."""
    tensorboard: bool = False
    """Whether a training writes its numbers for TensorBoard too."""
    cache: Path | None = None
    """Folder of what runs share, such as features; None = this run shares nothing."""
    reporter: Reporter = field(default_factory=Silent)
    """Where progress goes."""

    @property
    def checkpoints(self) -> Path:
        """Folder of the resumable training state."""
        return self.out / "ckpt"

    def log(self, **numbers: float | int | str) -> None:
        """Append one line to `metrics.jsonl`."""
        append_line(self.out / metrics.FILE, numbers)


def append_line(path: Path, data: Mapping[str, object]) -> None:
    """Append one JSON line by a single write, which other writers cannot tear.

    Raises:
        EnvironmentFault: the disk is full or the folder cannot be written.
    """
    text = (json.dumps(data) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if os.write(handle, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror or error}; free space or choose another -o") from error


def default_device() -> str:
    """`cuda` when torch can use one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
