"""The kNN classifier against scikit-learn's and lightly's."""

import importlib.util

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.seeding import generator
from tasks.common.nearest import GROUP, by_torch
from tasks.suite import knn


@pytest.fixture(scope="module")
def clusters():
    random = generator("clusters")
    centres = torch.randn(7, 16, generator=random)
    classes = torch.randint(7, (300,), generator=random)
    bank = centres[classes] + 1.5 * torch.randn(300, 16, generator=random)
    queries = centres[torch.randint(7, (120,), generator=random)] + 1.5 * torch.randn(120, 16, generator=random)
    return bank, classes, queries


def classify(bank, classes, queries, k, **how):
    found = knn.neighbours(bank.clone(), classes, queries.clone(), k=k, **how)
    return knn.vote(*found, 7, temperature=0.07)


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
    assert np.array_equal(classify(bank, classes, queries, k)[:, 0].numpy(), expected)


@pytest.mark.edge
@pytest.mark.parametrize("k", [20, 200])
def test_votes_equal_lightly(clusters, k):
    benchmarking = pytest.importorskip("lightly.utils.benchmarking.knn")
    bank, classes, queries = clusters
    normal = torch.nn.functional.normalize
    theirs = benchmarking.knn_predict(normal(queries), normal(bank).T, classes, num_classes=7, knn_k=k, knn_t=0.07)
    ours = classify(bank, classes, queries, k)
    voted = ours >= 0
    assert voted[:, 0].all() and voted.float().mean() > 0.6
    assert torch.equal(ours[voted], theirs[:, :5][voted])


def test_chunks_change_nothing(clusters, monkeypatch):
    whole = classify(*clusters, k=20)
    monkeypatch.setattr(knn, "CHUNK_BYTES", 4 * 300 * 7)
    assert torch.equal(classify(*clusters, k=20), whole)


def test_scale_of_features_does_not_matter(clusters):
    bank, classes, queries = clusters
    assert torch.equal(classify(7 * bank, classes, 0.1 * queries, 20), classify(*clusters, k=20))


@pytest.mark.parametrize("rows", [GROUP * 50, GROUP * 50 + 17])
def test_search_by_groups_finds_the_same(rows):
    random = generator("search")
    bank, queries = torch.randn(rows, 24, generator=random), torch.randn(40, 24, generator=random)
    similarity, numbers = by_torch(bank, queries, 10)
    expected = (queries @ bank.T).topk(10, dim=1)
    assert torch.equal(similarity, expected.values) and torch.equal(numbers, expected.indices)


def test_search_by_groups_finds_neighbours_that_share_a_group():
    bank = torch.full((GROUP * 50, 1), -1.0)
    close = torch.arange(10) * 50 + 3  # all of one group
    bank[close] = torch.arange(1.0, 11.0).unsqueeze(1)
    _, numbers = by_torch(bank, torch.ones(1, 1), 10)
    assert numbers[0].tolist() == close.flip(0).tolist()


def test_classes_without_a_vote_are_never_right(clusters):
    bank, classes, queries = clusters
    best = classify(bank, classes, queries, 1)
    assert (best[:, 1:] == -1).all()


@pytest.mark.skipif(importlib.util.find_spec("faiss") is not None, reason="faiss is installed")
def test_faiss_that_is_not_installed_is_one_line_with_the_fix(clusters):
    with pytest.raises(EnvironmentFault, match="pip install faiss-cpu"):
        classify(*clusters, k=20, search="faiss")


def test_faiss_finds_the_same(clusters):
    pytest.importorskip("faiss")
    assert torch.equal(classify(*clusters, k=20, search="faiss"), classify(*clusters, k=20))
