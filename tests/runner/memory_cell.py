"""A cell in a process of its own that tells how much memory it took beyond what is imported, in bytes: the cell's folder."""

import sys

import torch

from mae_bench import cell
from mae_bench.core import engine
from mae_bench.environment import peak_memory_mb
from tasks.common import classifiers, train

if __name__ == "__main__":
    torch.zeros(1).requires_grad_().sum().backward()
    assert classifiers and train and engine.train
    before = peak_memory_mb()
    code = cell.main(sys.argv[1:])
    after = peak_memory_mb()
    assert before is not None and after is not None
    sys.stdout.write(str((after - before) * 2**20))
    sys.exit(code)
