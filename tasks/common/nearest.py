"""Exact nearest neighbours by inner product."""

import importlib

import torch
from torch import Tensor

from mae_bench.core.errors import EnvironmentFault

GROUP = 16
"""Rows of the bank whose best is looked at first."""


def by_torch(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities and rows of the k nearest, (Q, k), from the nearest on, on the device of the bank.

    The k largest of a row lie in the k groups of largest maximum, so that only those are searched: selection, which costs as
    much as the products, passes over the row once.
    """
    similarity = queries @ bank.T
    groups = similarity.shape[1] // GROUP
    if groups <= 4 * k:
        found = similarity.topk(k, dim=1)
        return found.values, found.indices
    # A group is a column of this view, so that its maximum is taken by whole rows at a time; the rest are candidates anyway.
    whole = similarity[:, : groups * GROUP].unflatten(1, (GROUP, groups))
    columns = whole.amax(1).topk(k, dim=1).indices
    rows = torch.arange(GROUP, device=bank.device).unsqueeze(1) * groups
    rest = torch.arange(groups * GROUP, similarity.shape[1], device=bank.device).expand(len(queries), -1)
    candidates = torch.cat([(rows + columns.unsqueeze(1)).flatten(1), rest], dim=1)
    found = similarity.gather(1, candidates).topk(k, dim=1)
    return found.values, candidates.gather(1, found.indices)


def by_faiss(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same by faiss on the CPU.

    Raises:
        EnvironmentFault: faiss is not installed.
    """
    try:
        faiss = importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        raise EnvironmentFault("knn.search=faiss needs faiss, which is not installed; run: pip install faiss-cpu") from error
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.cpu().numpy())
    similarity, numbers = index.search(queries.cpu().numpy(), k)
    return torch.from_numpy(similarity).to(bank.device), torch.from_numpy(numbers).to(bank.device)
