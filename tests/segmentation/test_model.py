"""The network: what goes in, what comes out, the same from the same seed."""

import pytest
import torch

from mae_bench.core.run import Run
from tasks.data import ade20k
from tests.segmentation.conftest import tiny_backbone

pytestmark = pytest.mark.edge
mmseg = pytest.importorskip("tasks.edges.segmentation_mmseg")
model = pytest.importorskip("tasks.edges.segmentation_model")
data = pytest.importorskip("tasks.edges.segmentation_data")


def test_normalisation_is_the_backbones(settings):
    preprocessor = model.build_segmenter(tiny_backbone(), settings, 3).segmentor.data_preprocessor
    red = torch.zeros(3, 32, 32, dtype=torch.uint8)
    red[2] = 255  # the third channel of BGR
    (image,) = preprocessor({"inputs": [red], "data_samples": [mmseg.SegDataSample()]}, False)["inputs"]
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]))


def test_only_losses_are_given(settings):
    segmenter = model.build_segmenter(tiny_backbone(), settings, 3)
    losses = segmenter(labelled(torch.randint(0, 3, (2, 32, 32))))
    assert set(losses) == {"decode.loss_ce", "aux.loss_ce"}
    assert all(value.ndim == 0 and value.requires_grad for value in losses.values())
    # New heads know nothing: each loss is near that of guessing, the auxiliary one weighted.
    assert losses["decode.loss_ce"].item() == pytest.approx(1.0986, abs=0.3)
    assert losses["aux.loss_ce"].item() == pytest.approx(0.4 * 1.0986, abs=0.15)


def test_a_batch_can_be_used_again(settings, make_ade):
    segmenter = model.build_segmenter(tiny_backbone(), settings.override({"dropout": 0.0}), 3)
    batch = a_batch(settings, make_ade())
    first, second = segmenter(batch), segmenter(batch)
    assert all(first[name].item() == second[name].item() for name in first)


@pytest.mark.parametrize("class_weight", [None, [1.0, 2.0, 0.5]])
def test_S06_crops_without_a_label_have_no_loss(settings, class_weight):
    """They occur in good data too: nothing is learned from them, and nothing becomes NaN."""
    segmenter = model.build_segmenter(tiny_backbone(), settings, 3, class_weight=class_weight)
    losses = segmenter(labelled(torch.full((2, 32, 32), 255)))
    assert [value.item() for value in losses.values()] == [0.0, 0.0]
    torch.stack(list(losses.values())).sum().backward()
    gradients = [one.grad for one in segmenter.parameters() if one.grad is not None]
    assert gradients and not any(one.any() for one in gradients)


def labelled(numbers):
    """A batch of noise with label maps (B, H, W)."""
    from mmengine.structures import PixelData

    size = tuple(numbers.shape[1:])
    samples = [mmseg.SegDataSample(metainfo={"img_shape": size}) for _ in numbers]
    for sample, one in zip(samples, numbers, strict=True):
        sample.gt_sem_seg = PixelData(data=one.unsqueeze(0))
    return {"inputs": [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in numbers], "data_samples": samples}


def test_same_seed_same_weights(settings, tmp_path):
    from tasks.common.train import seeded

    def build(seed):
        return seeded(lambda: model.build_segmenter(tiny_backbone(), settings, 3), Run(tmp_path, seed=seed)).state_dict()

    first, again, other = build(0), build(0), build(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["segmentor.decode_head.conv_seg.weight"], other["segmentor.decode_head.conv_seg.weight"])


def a_batch(settings, root):
    samples = data.SegmentationData(ade20k.load(root, "train"), data.train_pipeline(settings, 32))
    return data.collate([samples[0], samples[1]])


def test_class_weights_reach_both_losses(settings):
    segmentor = model.build_segmenter(tiny_backbone(), settings, 3, class_weight=[1.0, 2.0, 3.0]).segmentor
    for head in (segmentor.decode_head, segmentor.auxiliary_head):
        assert head.loss_decode.class_weight == [1.0, 2.0, 3.0]


def test_a_balanced_loss_is_torchs_weighted_mean(settings):
    """Over the pixels that have a class; ignored ones, whose number is beyond the weights, are never looked up."""
    weights = [1.0, 2.0, 0.5]
    head = model.build_segmenter(tiny_backbone(), settings, 3, class_weight=weights).segmentor.decode_head
    scores, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    labels[:, :3] = 255
    expected = torch.nn.functional.cross_entropy(scores, labels, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(head.loss_decode(scores, labels, weight=None, ignore_index=255), expected)
