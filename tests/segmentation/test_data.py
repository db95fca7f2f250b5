"""From files to packed samples: which numbers mean what, channel order, sizes, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from mae_bench.core.errors import InputError
from mae_bench.core.seeding import seed_all
from tasks.data._label_maps import SegmentationSplit, counted_from
from tests.segmentation.conftest import rectangles

pytestmark = pytest.mark.edge
data = pytest.importorskip("tasks.edges.segmentation_data")


def write(folder, image, labels, *, first=1):
    """A split of one image, as it is on disk."""
    image.save(folder / "image.png")
    labels.save(folder / "labels.png")
    lookup = counted_from(first, 3, ignored=(0,) if first else ())
    return SegmentationSplit([(folder / "image.png", folder / "labels.png")], ("one", "two", "three"), None, lookup)


def only(split, pipeline):
    return data.SegmentationData(split, pipeline)[0]


def test_zero_and_255_are_ignored_and_one_becomes_the_first_class(tmp_path, settings):
    stored = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
    split = write(tmp_path, Image.new("RGB", (3, 2)), Image.fromarray(stored))
    sample = only(split, data.test_pipeline(settings, 32))["data_samples"]
    assert sample.gt_sem_seg.data.tolist() == [[[255, 0, 1], [2, 255, 0]]]


def test_labels_that_begin_at_zero_stay(tmp_path, settings):
    stored = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)
    split = write(tmp_path, Image.new("RGB", (3, 2)), Image.fromarray(stored), first=0)
    assert only(split, data.test_pipeline(settings, 32))["data_samples"].gt_sem_seg.data.tolist() == [stored.tolist()]


@pytest.mark.parametrize("first", [0, 1])
def test_labels_equal_those_of_mmsegs_loader(tmp_path, first):
    from mmseg.datasets.transforms import LoadAnnotations

    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(stored).save(tmp_path / "labels.png")
    info = {"seg_map_path": str(tmp_path / "labels.png"), "reduce_zero_label": bool(first), "seg_fields": []}
    LoadAnnotations().transform(info)
    lookup = counted_from(first, 254, ignored=(0,) if first else ())
    known = np.frombuffer(lookup, np.uint8)[stored]
    assert np.array_equal(known[known != 254], np.asarray(info["gt_seg_map"])[known != 254])
    assert np.count_nonzero(known == 254) == 1 - first, "254 alone is of no class, where classes begin at 0"


def test_palette_maps_are_numbers(tmp_path, settings):
    coloured = Image.fromarray(np.array([[1, 2], [3, 0]], np.uint8))
    coloured.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    split = write(tmp_path, Image.new("RGB", (2, 2)), coloured)
    assert only(split, data.test_pipeline(settings, 32))["data_samples"].gt_sem_seg.data.tolist() == [[[0, 1], [2, 255]]]


def test_images_are_bgr(tmp_path, settings):
    split = write(tmp_path, Image.new("RGB", (40, 40), (250, 120, 10)), Image.new("L", (40, 40), 1))
    image = only(split, data.test_pipeline(settings, 32))["inputs"]
    assert image.dtype == torch.uint8 and image.shape == (3, 32, 32)
    assert image[:, 0, 0].tolist() == [10, 120, 250]


@pytest.mark.parametrize(
    ("size", "resized"),
    [((640, 480), (43, 32)), ((480, 640), (32, 43)), ((1000, 100), (128, 13)), ((10, 10), (32, 32)), ((1, 1), (32, 32))],
)
def test_test_images_are_resized_and_labels_are_not(tmp_path, size, resized, settings):
    split = write(tmp_path, Image.new("RGB", size), Image.new("L", size, 1))
    sample = only(split, data.test_pipeline(settings, 32))
    assert tuple(sample["inputs"].shape) == (3, resized[1], resized[0])
    assert tuple(sample["data_samples"].gt_sem_seg.shape) == (size[1], size[0])


@pytest.mark.parametrize("size", [(640, 480), (20, 20), (90, 12), (1, 1)])
def test_training_crops_of_any_image_make_a_batch(tmp_path, settings, size):
    from tasks.edges.segmentation_model import build_segmenter
    from tests.segmentation.conftest import tiny_backbone

    split = write(tmp_path, Image.new("RGB", size, (5, 6, 7)), Image.new("L", size, 2))
    samples = data.SegmentationData(split, data.train_pipeline(settings, 32))
    batch = data.collate([samples[0], samples[0]])
    prepared = build_segmenter(tiny_backbone(), settings, 3)._prepare(batch, training=True)
    assert prepared["inputs"].shape == (2, 3, 32, 32)
    for image, sample in zip(batch["inputs"], prepared["data_samples"], strict=True):
        labels = sample.gt_sem_seg.data
        height, width = image.shape[-2:]
        assert labels.shape == (1, 32, 32) and set(labels[:, :height, :width].flatten().tolist()) == {1}
        assert set(labels.flatten().tolist()) <= {1, 255}, "what is padded is ignored"


def test_a_flip_turns_image_and_labels(tmp_path, settings):
    labels = rectangles(1, 0, size=(32, 32))[0]
    picture = np.repeat(labels[..., None] * 60, 3, axis=2)
    split = write(tmp_path, Image.fromarray(picture), Image.fromarray(labels))
    same_size = {"resize_ratio": (1.0, 1.0), "photometric": False, "cat_max_ratio": 1.0}
    for flip in (0.0, 1.0):
        sample = only(split, data.train_pipeline(settings.override({**same_size, "flip": flip}), 32))
        image, truth = sample["inputs"], sample["data_samples"].gt_sem_seg.data[0]
        expected = labels[:, ::-1] if flip else labels
        assert np.array_equal(image[0].numpy(), expected * 60)
        assert np.array_equal(truth.numpy(), np.where(expected == 0, 255, expected.astype(int) - 1))


def test_a_sample_depends_on_the_seed_alone(tmp_path, settings):
    labels = rectangles(1, 0)[0]
    split = write(tmp_path, Image.fromarray(np.repeat(labels[..., None] * 60, 3, axis=2)), Image.fromarray(labels))
    samples = data.SegmentationData(split, data.train_pipeline(settings, 32))

    def draw(seed):
        seed_all(seed, "sample")
        return samples[0]["inputs"]

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        ((8, 8), Image.new("RGB", (8, 8)), "has mode RGB in place of 8-bit numbers"),
        ((8, 8), Image.new("I;16", (8, 8), 1), "has mode I;16 in place of 8-bit numbers"),
        ((8, 8), Image.new("L", (8, 7), 1), "a label map of 8 x 7 for an image of another size"),
        ((8, 8), Image.new("L", (8, 8), 4), "labels 4 are of none of the 3 classes"),
        ((500, 1), Image.new("L", (500, 1), 1), "of 500 x 1 pixels is too thin"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, image, labels, message, settings):
    split = write(tmp_path, Image.new("RGB", image), labels)
    with pytest.raises(InputError, match=message):
        only(split, data.test_pipeline(settings, 32))


def test_a_damaged_label_map_is_named(tmp_path, settings):
    split = write(tmp_path, Image.new("RGB", (64, 64)), Image.fromarray(rectangles(1, 0, size=(64, 64))[0]))
    path = split.pairs[0][1]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cannot decode label map .*labels\.png"):
        only(split, data.test_pipeline(settings, 32))


def test_class_weights_follow_the_frequency(tmp_path):
    stored = np.array([[1] * 8, [2, 2, 0, 255, 2, 2, 1, 1]], np.uint8)  # ten, four and no pixels of the three classes
    split = write(tmp_path, Image.new("RGB", (8, 2)), Image.fromarray(stored))
    assert data.class_weights(split, 0.0) is None
    first, second, absent = data.class_weights(split, 1.0)
    assert second / first == pytest.approx(10 / 4) and absent == second
    assert (10 * first + 4 * second) / 14 == pytest.approx(1)
    softer = data.class_weights(split, 0.5)
    assert softer[1] / softer[0] == pytest.approx((10 / 4) ** 0.5)


def test_class_weights_without_a_labelled_pixel(tmp_path):
    split = write(tmp_path, Image.new("RGB", (8, 2)), Image.new("L", (8, 2), 0))
    assert data.class_weights(split, 1.0) is None
