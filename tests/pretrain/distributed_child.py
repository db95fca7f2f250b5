"""One process of a pretraining, alone or of several that torchrun starts: objective, images, output, `key=value` words.

`--sharded` among the words cuts the weights over the processes, `--often` saves at every step, `--plain` takes SimCLR's head
without batch norm, whose statistics are each process's own on a CPU.
"""

import sys
from functools import partial
from pathlib import Path

import torch

from mae_bench.core.run import Run
from mae_bench.pretrain import pretrain
from tasks.handle import open_data

if __name__ == "__main__":
    torch.set_num_threads(1)
    objective, images, out, *words = sys.argv[1:]
    overrides = dict(word.split("=", 1) for word in words if "=" in word)
    if "--plain" in words:
        from mae_bench.objectives import _contrastive

        head, loss = _contrastive._lightly()
        _contrastive._lightly = lambda: (partial(head, batch_norm=False), loss)
    run = Run(Path(out), sharded="--sharded" in words, save_seconds=0.0 if "--often" in words else 60.0)
    pretrain(objective, "vit_demo_patch8", open_data(f"folder={images}"), overrides, run, recipe="demo")
