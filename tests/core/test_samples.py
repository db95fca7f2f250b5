"""Samples that cannot be made: told in our own words whatever the workers, skipped within a limit, replaced the same again."""

import json

import pytest
import torch
from torch.utils.data import default_collate

from mae_bench.core.batches import Batches, Order, Share, loader
from mae_bench.core.errors import EnvironmentFault, InputError, MaeBenchError
from mae_bench.core.samples import Skipped, in_order, skipped_images


class Damaged:
    """Ten samples with random noise, of which some cannot be made."""

    def __init__(self, bad: set[int], error: type[MaeBenchError] = InputError):
        self.bad, self.error = bad, error

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in self.bad:
            raise self.error(f"cannot decode image {index}.png: it is cut; replace or remove it")
        return torch.tensor([float(index)]) + 0.1 * torch.rand(1)


def drawn(data, skipped, *, workers=0, start=0, stop=6):
    batches = Batches(Order(len(data), 4, seed=3), start, stop, Share())
    return [
        batch.flatten().tolist() for batch in loader(data, default_collate, batches, seed=3, workers=workers, skipped=skipped)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_out_of_a_worker_as_it_is(workers):
    with pytest.raises(InputError) as caught:
        list(in_order(Damaged({7}), default_collate, batch_size=4, workers=workers))
    assert str(caught.value) == "cannot decode image 7.png: it is cut; replace or remove it"
    with pytest.raises(InputError, match=r"^cannot decode image 7\.png: it is cut; replace or remove it$"):
        drawn(Damaged({7}), None, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_is_replaced_the_same_again(tmp_path, workers):
    whole = drawn(Damaged({7}), Skipped(tmp_path / "a", 10, 0.1), workers=workers)
    resumed = drawn(Damaged({7}), Skipped(tmp_path / "b", 10, 0.1), workers=workers, start=3)
    assert whole[3:] == resumed
    assert whole == drawn(Damaged({7}), Skipped(tmp_path / "c", 10, 0.1))
    assert all(len(batch) == 4 for batch in whole)
    (line,) = [json.loads(text) for text in (tmp_path / "a" / "skipped.jsonl").read_text().splitlines()]
    reason = "cannot decode image 7.png: it is cut; replace or remove it"
    assert line == {"split": "train", "index": 7, "reason": reason, "by": "training"}


def test_other_samples_are_as_without_the_damage(tmp_path):
    plain, spoiled = drawn(Damaged(set()), None), drawn(Damaged({7}), Skipped(tmp_path, 10, 0.1))
    differing = [
        value for old, new in zip(plain, spoiled, strict=True) for value, now in zip(old, new, strict=True) if value != now
    ]
    assert differing and all(7 <= value < 7.2 for value in differing)


def test_more_than_the_limit_ends_with_the_count(tmp_path):
    with pytest.raises(InputError, match=r"3 of 10 training images cannot be read, and 2 may be skipped: .*skipped\.jsonl names"):
        drawn(Damaged({1, 5, 7}), Skipped(tmp_path, 10, 0.2))
    assert skipped_images(tmp_path) == 3


def test_images_skipped_before_a_resume_count(tmp_path):
    drawn(Damaged({1}), Skipped(tmp_path, 10, 0.1))
    with pytest.raises(InputError, match="2 of 10 training images"):
        drawn(Damaged({7}), Skipped(tmp_path, 10, 0.1))


def test_beginning_anew_forgets_images_and_keeps_annotations(tmp_path):
    (tmp_path / "skipped.jsonl").write_text('{"split": "train", "id": 3, "kind": "negative or empty box"}\n')
    skipped = Skipped(tmp_path, 10, 0.1)
    drawn(Damaged({7}), skipped)
    skipped.forget()
    assert skipped_images(tmp_path) == 0
    assert "empty box" in (tmp_path / "skipped.jsonl").read_text()


@pytest.mark.parametrize(("images", "share", "limit"), [(10, 0.001, 1), (1_281_167, 0.001, 1282), (10, 0.0, 0)])
def test_the_limit_is_rounded_up(tmp_path, images, share, limit):
    assert Skipped(tmp_path, images, share).limit == limit


def test_only_bad_data_is_skipped(tmp_path):
    with pytest.raises(EnvironmentFault):
        drawn(Damaged({7}, EnvironmentFault), Skipped(tmp_path, 10, 0.5))


def test_data_that_is_all_bad_ends_with_the_first_error(tmp_path):
    with pytest.raises(InputError, match="cannot decode image"):
        drawn(Damaged(set(range(10))), Skipped(tmp_path, 10, 0.1))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_order_lack_what_is_skipped(tmp_path, workers):
    found = in_order(Damaged({1, 4, 5}), default_collate, batch_size=2, workers=workers, skipped=Skipped(tmp_path, 10, 0.3))
    assert [[int(value) for value in batch] for batch in found] == [[0], [2, 3], [6, 7], [8, 9]]
