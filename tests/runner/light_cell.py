"""A cell without torch, run as a script in place of `mae_bench.cell`: `light_cell.py FOLDER --key KEY`."""

import os
import sys
import time
from pathlib import Path

from mae_bench.core.errors import Diverged, InputError
from mae_bench.job import Busy, work_in
from results.keeping import has_record, write_record
from results.request import read_request
from tests.results.sample import make_record


def measure(folder: Path, key: str) -> None:
    request = read_request(folder, print)
    if request is None or request.key != key:
        raise Busy
    if has_record(folder, key) and "--anew" not in sys.argv:
        return
    with (folder / "visits").open("a") as file:
        file.write("x")
    time.sleep(float(os.environ.get("LIGHT_SECONDS", "0")))
    if request.config.get("mode") == "diverge":
        raise Diverged("the loss is not finite at step 3")
    if request.config.get("mode") == "error":
        raise InputError("it is broken; mend it")
    record = make_record(
        request.model, request.task, request.recipe, {"top1": float(request.config.get("k", 0)) + request.seed}, request.seed
    )
    write_record(folder, record.model_copy(update={"key": request.key}))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.exit(work_in(place, lambda: measure(place, sys.argv[3])))
