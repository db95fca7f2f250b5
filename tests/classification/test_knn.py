"""The kNN classifier against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from tasks.suite import knn


@pytest.fixture(scope="module")
def clusters():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 16, generator=generator)
    classes = torch.randint(7, (300,), generator=generator)
    bank = centres[classes] + 1.5 * torch.randn(300, 16, generator=generator)
    queries = centres[torch.randint(7, (120,), generator=generator)] + 1.5 * torch.randn(120, 16, generator=generator)
    return bank, classes, queries


@pytest.mark.parametrize("k", [1, 10, 20, 200])
def test_votes_equal_scikit_learn(clusters, k):
    bank, classes, queries = clusters

    def weights(distances):
        return np.exp((1 - distances) / 0.07)

    peer = KNeighborsClassifier(
        n_neighbors=k,
        weights=weights,  # pyright: ignore[reportArgumentType]  # a function is taken too
        metric="cosine",
        algorithm="brute",
    )
    expected = peer.fit(bank.double().numpy(), classes.numpy()).predict(queries.double().numpy())
    found = knn.vote(bank, classes, queries, k=k, temperature=0.07)
    assert np.array_equal(found.numpy(), expected)


def test_chunks_change_nothing(clusters, monkeypatch):
    bank, classes, queries = clusters
    whole = knn.vote(bank, classes, queries, k=20, temperature=0.07)
    monkeypatch.setattr(knn, "CHUNK", 7)
    assert torch.equal(knn.vote(bank, classes, queries, k=20, temperature=0.07), whole)


def test_scale_of_features_does_not_matter(clusters):
    bank, classes, queries = clusters
    found = knn.vote(bank, classes, queries, k=20, temperature=0.07)
    assert torch.equal(knn.vote(7 * bank, classes, 0.1 * queries, k=20, temperature=0.07), found)
