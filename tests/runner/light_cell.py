"""A cell without torch, run as a script in place of `mae_bench.cell`: `light_cell.py FOLDER --key KEY`."""

import os
import resource
import signal
import sys
import time
from pathlib import Path

from mae_bench import claim
from mae_bench.claim import Busy
from mae_bench.core.errors import Diverged, InputError
from mae_bench.job import work_in
from results.keeping import has_record, write_record
from results.request import read_request
from tests.results.sample import make_record

ROOM_LEFT = 1000
"""Bytes of a file on the disk that is full; a log has fewer, a record more."""


def measure(folder: Path, key: str) -> None:
    request = read_request(folder, print)
    if request is None or request.key != key:
        raise Busy
    if has_record(folder, key) and "--anew" not in sys.argv:
        return
    mark(folder, "visits")
    mode = str(request.config.get("mode"))
    early(folder, mode)
    time.sleep(float(os.environ.get("LIGHT_SECONDS", "0")))
    if mode == "diverge":
        raise Diverged("the loss is not finite at step 3")
    if mode == "error":
        raise InputError("it is broken; mend it")
    metrics = {"top1": float(request.config.get("k", 0)) + request.seed}
    record = make_record(request.model, request.task, request.recipe, metrics, request.seed)
    if mode == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_LEFT, ROOM_LEFT))
    date = "1999-01-01T00:00:00+00:00" if mode == "clock" else record.date
    write_record(folder, record.model_copy(update={"key": request.key, "date": date}))
    mark(folder, "finished")


def early(folder: Path, mode: str) -> None:
    """Faults that come before the work is done."""
    if mode == "kill" or (mode == "kill once" and len((folder / "visits").read_text()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "crash":
        raise ZeroDivisionError("a fault of the suite")
    if mode == "hang":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)  # where its runner is killed nothing ends it, and other runners wait
        os._exit(1)
    if mode == "clock":
        time.time = lambda: 0.0  # everything this process writes down is of 1970
        for path in folder.iterdir():
            os.utime(path, (4e9, 4e9))


def mark(folder: Path, name: str) -> None:
    with (folder / name).open("a") as file:
        file.write("x")


def main(words: list[str]) -> int:
    claim.BEAT_SECONDS = float(os.environ.get("LIGHT_BEAT", claim.BEAT_SECONDS))
    place = Path(words[0])
    return work_in(place, lambda: measure(place, words[2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
