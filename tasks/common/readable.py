"""Reading a validation split before the training that ends in it."""

from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from mae_bench.core import processes
from mae_bench.core.errors import MaeBenchError, Stopped
from mae_bench.core.parallel import check_machine, join
from mae_bench.core.run import Run
from mae_bench.core.samples import in_order

BATCH = 16
"""Images between two signs of progress."""


def read_through(data: Any, run: Run, task: str) -> None:
    """Read every validation image once, unless the training has saved a state already.

    Else a damaged one is found when the training is over, and the file in its place makes another cell, which trains anew.
    Each of several processes reads its share, and all end with the same error: the main one tells how a cell ended.

    Args:
        data: samples by number, with a length; what is made of them is let go.
        run: workers, progress, and where the training saves.
        task: in progress displays.

    Raises:
        InputError: an image cannot be used; the first one of a process.
        ConfigError: the machine cannot train in this number format.
    """
    if run.checkpoints.is_dir() and any(run.checkpoints.iterdir()):
        return
    check_machine(run)
    error = _first_error(data, run, task)
    if processes.world() > 1:
        join(run)
        errors: list[MaeBenchError | None] = [None] * processes.world()
        torch.distributed.all_gather_object(errors, error)
        error = next((one for one in errors if one is not None), None)
    if error is not None:
        raise error


def _first_error(data: Any, run: Run, task: str) -> MaeBenchError | None:
    """Read this process's share up to the first image that cannot be used."""
    mine = range(processes.rank(), len(data), processes.world())
    run.reporter.start(f"{task}: reading val images", len(mine))
    share: Any = Subset(_LetGo(data), mine)
    try:
        for count in in_order(share, len, batch_size=BATCH, workers=run.workers):
            run.reporter.advance(count)
    except Stopped:
        raise
    except MaeBenchError as error:
        return error
    return None


class _LetGo(Dataset[None]):
    """Samples that are made and do not leave their data worker."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> None:
        self._data[index]
