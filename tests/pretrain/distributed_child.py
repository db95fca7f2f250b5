"""One process of a pretraining, alone or of several that torchrun starts: objective, images, output, `key=value` words."""

import sys
from pathlib import Path

import torch

from mae_bench.core.run import Run
from mae_bench.pretrain import pretrain
from tasks.handle import open_data

if __name__ == "__main__":
    torch.set_num_threads(1)
    objective, images, out, *words = sys.argv[1:]
    overrides = dict(word.split("=", 1) for word in words)
    pretrain(objective, "vit_demo_patch8", open_data(f"folder={images}"), overrides, Run(Path(out)), recipe="demo")
