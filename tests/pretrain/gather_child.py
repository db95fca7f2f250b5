"""One of two processes that compute contrastive losses on their halves of a batch: output folder."""

import sys
from pathlib import Path

import torch
from lightly.loss import NTXentLoss

from mae_bench.objectives._pair import moco_loss

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    points = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.eye(16).requires_grad_()
    mine = points[:, rank::world] @ weight
    losses = [NTXentLoss(0.2, gather_distributed=True)(mine[0], mine[1]), moco_loss(mine[0], mine[1].detach(), 0.2)]
    found = []
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        # What DDP does: means over the processes.
        value = torch.stack([loss.detach(), gradient.sum()])
        torch.distributed.all_reduce(gradient)
        torch.distributed.all_reduce(value)
        found.append((value[0] / world, gradient / world))
    if rank == 0:
        torch.save(found, Path(sys.argv[1]) / "found.pt")
    torch.distributed.destroy_process_group()
