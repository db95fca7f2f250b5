"""Shares of right answers, and what is left of each image for paired tests."""

import json

import pytest
import torch

from results.names import PER_IMAGE
from tasks.common.accuracy import accuracy, ranked


@pytest.fixture
def answers():
    scores = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    return ranked(scores), torch.arange(40) % 7


def test_each_image_is_left_beside_the_shares(tmp_path, answers):
    best, truth = answers
    found = accuracy(best, truth, 7, tmp_path)
    images = json.loads((tmp_path / PER_IMAGE).read_text())
    assert set(images) == set(found) == {"top1", "top5"}
    assert images["top1"] == [int(a == b) for a, b in zip(best[:, 0].tolist(), truth.tolist(), strict=True)]
    for name, share in found.items():
        assert share == pytest.approx(100 * sum(images[name]) / 40)


def test_without_a_folder_nothing_is_written(tmp_path, answers, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best, truth = answers
    accuracy(best, truth, 7)
    assert not list(tmp_path.iterdir())
