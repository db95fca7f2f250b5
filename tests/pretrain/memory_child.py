"""A pretraining in a process of its own that tells how much memory it took, in bytes: objective, images, output, words."""

import os
import sys
import threading
import time
from pathlib import Path

import torch

from mae_bench import pretrain
from mae_bench.core import engine, find
from mae_bench.core.run import Run
from tasks.handle import open_data


def resident():
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak(threading.Thread):
    """Looks at the memory of this process every few milliseconds."""

    def __init__(self):
        super().__init__(daemon=True)
        self.first = self.most = resident()

    def run(self):
        while True:
            self.most = max(self.most, resident())
            time.sleep(0.003)


if __name__ == "__main__":
    torch.set_num_threads(1)
    objective, images, out, *words = sys.argv[1:]
    find.load(pretrain.ROOM, objective, what="objective")
    assert engine.train
    peak = Peak()
    peak.start()
    overrides = dict(word.split("=", 1) for word in words)
    pretrain.pretrain(objective, "vit_demo_patch8", open_data(f"folder={images}"), overrides, Run(Path(out)))
    sys.stdout.write(str(peak.most - peak.first))
