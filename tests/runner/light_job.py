"""A job without torch, run as a script: `light_job.py FOLDER KIND`."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from mae_bench.core.errors import InputError
from mae_bench.core.progress import FileReporter
from mae_bench.job import work_in


def work(folder: Path, kind: str) -> None:
    reporter = FileReporter(folder)
    reporter.start(kind, 100)
    with (folder / "visits").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if kind == "fail":
        raise InputError("the checkpoint is broken; fetch it again")
    if kind == "fail-alone" and os.environ["RANK"] == "1":
        raise InputError("image 3 is broken; fetch it again")
    if kind == "kill-other":
        while len((folder / "visits").read_text().split()) % 2:  # the other one has yet to come
            time.sleep(0.05)
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1)
        raise ConnectionError("closed by peer")
    if kind == "crash":
        raise RuntimeError("a fault\nof two lines")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "tell":
        lines = Path("/proc/self/cmdline").read_bytes().decode().split("\0")
        facts = {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "shown": lines, "place": os.environ["PLACE"]}
        (folder / "facts.json").write_text(json.dumps(facts))
    if kind == "stubborn":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    if kind in ("sleep", "stubborn", "fail-alone"):
        (folder / "ready").touch()
        for _ in range(600):
            reporter.advance()
            time.sleep(0.1)
    if kind == "swallow":
        (folder / "ready").touch()
        try:
            time.sleep(60)
        finally:
            (folder / "saved").touch()


def main(words: list[str]) -> int:
    place = Path(words[0])
    return work_in(place, lambda: work(place, words[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
