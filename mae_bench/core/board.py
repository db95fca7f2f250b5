"""The numbers of `metrics.jsonl` once more, for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

from mae_bench.core.find import missing

FOLDER = "tensorboard"


class Board:
    """Event files in `tensorboard/` of a run's folder: one scalar a number, by step."""

    def __init__(self, out: Path, step: int) -> None:
        """Begin or go on; what was written for `step` and after it is no longer shown.

        Raises:
            EnvironmentFault: TensorBoard is not installed.
        """
        check_board()
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(out / FOLDER), purge_step=step)

    def add(self, line: Mapping[str, float]) -> None:
        """Write one line of `metrics.jsonl`, which has a `step`."""
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(line["step"]))

    def flush(self) -> None:
        """Bring what is written to the disk, as has to be done before a state is saved that goes on after it."""
        self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        self._writer.close()


def check_board() -> None:
    """See that TensorBoard is installed.

    Raises:
        EnvironmentFault: it is not.
    """
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing(error, "--tensorboard") from error
