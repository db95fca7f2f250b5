"""kNN of features, against plain torch, scikit-learn and, where it is installed, faiss.

    python benchmarks/knn.py [--bank 50000] [--queries 2000] [--width 768] [--rounds 5]

Clustered random features; k 20, temperature 0.07; one thread. The ways take turns; medians of CPU time, and of the ratios of each
round to ours. The share of equal answers is printed beside, and is to be 1 but for ties. Nothing fails here: the numbers are
read.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import normalize

from tasks.suite import knn

K, TEMPERATURE, CLASSES = 20, 0.07, 100
CHUNK = 1024


def clusters(images: int, width: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around one centre a class, and the classes."""
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(0))
    classes = torch.randint(CLASSES, (images,), generator=random)
    return centres[classes] + 4 * torch.randn(images, width, generator=random), classes


def ours(bank: torch.Tensor, classes: torch.Tensor, queries: torch.Tensor, search: str = "exact") -> torch.Tensor:
    """The suite's, which normalises its arguments in place."""
    found = knn.neighbours(bank.clone(), classes, queries.clone(), k=K, search="faiss" if search == "faiss" else "exact")
    return knn.vote(*found, CLASSES, temperature=TEMPERATURE)[:, 0]


def plain(bank: torch.Tensor, classes: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """A chunked product and topk, as DINO's script has it."""
    bank, queries, found = normalize(bank, dim=1), normalize(queries, dim=1), []
    for chunk in queries.split(CHUNK):
        similarity, nearest = (chunk @ bank.T).topk(K, dim=1)
        votes = torch.zeros(len(chunk), CLASSES).scatter_add_(1, classes[nearest], (similarity / TEMPERATURE).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def sklearn(bank: torch.Tensor, classes: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """scikit-learn's brute force."""

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / TEMPERATURE)

    taken: Any = weights  # its annotation says text only
    peer = KNeighborsClassifier(K, weights=taken, metric="cosine", algorithm="brute", n_jobs=1)
    return torch.from_numpy(peer.fit(bank.numpy(), classes.numpy()).predict(queries.numpy()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("bank", 50_000), ("queries", 2_000), ("width", 768), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(1)
    bank, classes = clusters(given.bank, given.width, random)
    queries, truth = clusters(given.queries, given.width, random)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: ours(bank, classes, queries),
        "plain torch": lambda: plain(bank, classes, queries),
        "scikit-learn": lambda: sklearn(bank, classes, queries),
    }
    if importlib.util.find_spec("faiss") is not None:
        ways["ours, search=faiss"] = lambda: ours(bank, classes, queries, "faiss")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, torch.Tensor] = {}
    for _ in range(given.rounds):
        for name, way in ways.items():
            started = time.process_time()
            answers[name] = way()
            seconds[name].append(time.process_time() - started)
    products = 2 * given.bank * given.queries * given.width / 1e9
    print(f"{given.bank} x {given.queries} x {given.width}, k {K}: {products:.0f} GFLOP; medians of {given.rounds} rounds")
    for name, spent in seconds.items():
        ratio = statistics.median(other / own for other, own in zip(spent, seconds["ours"], strict=True))
        same = float((answers[name] == answers["ours"]).double().mean())
        right = 100 * float((answers[name] == truth).double().mean())
        median = statistics.median(spent)
        print(f"{name:20} {median:7.2f} CPU s {products / median:6.0f} GFLOP/s  x{ratio:4.2f}  same {same:.4f}  top1 {right:.2f}")


if __name__ == "__main__":
    main()
