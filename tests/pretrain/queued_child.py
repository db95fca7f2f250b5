"""A light job that is stopped as often as it is told to be, and then ends well: folder, how often."""

import os
import sys
import time
from pathlib import Path

from mae_bench.job import work_in


def work(folder: Path, stops: int) -> None:
    visits = len(list(folder.glob("visit-*")))
    (folder / f"visit-{visits}").write_text(str(os.getppid()))
    if visits < stops:
        try:
            time.sleep(60)
        finally:
            (folder / f"saved-{visits}").touch()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.exit(work_in(place, lambda: work(place, int(sys.argv[2]))))
