"""Predictions of several views, of windows and in fp32: by hand and against mmsegmentation's own."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mae_bench.core.run import Run
from tasks.data import ade20k
from tests.segmentation.conftest import rectangles, tiny_backbone, tiny_source

pytestmark = pytest.mark.edge
pytest.importorskip("tasks.edges.segmentation_run")

from tasks.edges import segmentation_data as data  # noqa: E402
from tasks.edges import segmentation_eval as measure  # noqa: E402
from tasks.edges import segmentation_run as running  # noqa: E402
from tasks.edges.segmentation_mmseg import SegDataSample  # noqa: E402
from tasks.edges.segmentation_model import Segmenter, build_segmenter  # noqa: E402
from tasks.handle import open_data  # noqa: E402


def learned(settings, **wanted) -> Segmenter:
    """A network whose predictions differ from place to place."""
    torch.manual_seed(0)
    model = build_segmenter(tiny_backbone(**wanted), settings, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def balance(model, view) -> None:
    """Let no class be ahead of the others on the average over an image."""
    found = model.predict(data.collate([view]))[0].seg_logits.data
    with torch.no_grad():
        model.segmentor.decode_head.conv_seg.bias -= found.mean(dim=(1, 2))


def scores(model, image, mode="predict"):
    """mmseg's scores (classes, H, W) of one image of bytes (3, H, W)."""
    sample = SegDataSample(metainfo={"ori_shape": tuple(image.shape[-2:]), "img_shape": tuple(image.shape[-2:])})
    return model.predict({"inputs": [image], "data_samples": [sample]})[0].seg_logits.data


def test_windows_are_stitched_as_by_hand(settings):
    """70 x 45 in windows of 32, steps of 20: the last window of a side ends with the image."""
    model = learned(settings.override({"test_stride": 20}))
    image = torch.randint(0, 256, (3, 45, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    total, times = torch.zeros(3, 45, 70), torch.zeros(45, 70)
    for top in (0, 13):
        for left in (0, 20, 38):
            total[:, top : top + 32, left : left + 32] += scores(model, image[:, top : top + 32, left : left + 32])
            times[top : top + 32, left : left + 32] += 1
    assert times.max() == 4 and times.min() == 1
    torch.testing.assert_close(scores(model, image), total / times, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [8, 14, 16])
def test_a_whole_rectangle_at_any_patch_size(settings, patch):
    """The image is filled up to whole cells of the coarsest map, and the scores are cut back to it."""
    model = learned(settings.override({"test_mode": "whole"}), patch=patch)
    image = torch.randint(0, 256, (3, 50, 75), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = scores(model, image)
    assert found.shape == (3, 50, 75)
    segmentor: Any = model.segmentor
    sides = [side + -side % (32 if patch == 8 else 2 * patch) for side in (50, 75)]
    mean, std = segmentor.data_preprocessor.mean, segmentor.data_preprocessor.std
    padded = torch.zeros(1, 3, *sides)
    padded[0, :, :50, :75] = (image[[2, 1, 0]].float() - mean) / std
    with torch.no_grad():
        low = segmentor.decode_head(segmentor.neck(segmentor.backbone(padded)))
    expected = torch.nn.functional.interpolate(low, size=sides, mode="bilinear")[0, :, :50, :75]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def split(make_ade):
    return ade20k.load(make_ade({"training": rectangles(1, 0), "validation": rectangles(2, 2, size=(48, 64))}), "val")


def views_of(settings, split, **changes):
    settings = settings.override({"test_scales": [0.5, 1.0, 1.5], "test_flip": True, **changes})
    return data.TestViews(split, *data.test_views(settings, 32))


def test_views_are_three_sizes_each_also_mirrored(settings, split):
    views = views_of(settings, split)[0]
    sizes = [tuple(view["inputs"].shape[1:]) for view in views]
    assert sizes == [(32, 43), (32, 43), (32, 43), (32, 43), (48, 64), (48, 64)], "none smaller than a window"
    assert [view["data_samples"].metainfo.get("flip", False) for view in views] == [False, True] * 3
    for plain, mirrored in zip(views[::2], views[1::2], strict=True):
        assert torch.equal(plain["inputs"].flip(2), mirrored["inputs"])
        assert torch.equal(plain["data_samples"].gt_sem_seg.data, mirrored["data_samples"].gt_sem_seg.data)
    assert tuple(views_of(settings, split, test_scales=[0.5], test_flip=False)[0][0]["inputs"].shape[1:]) == (16, 21)


def test_prediction_of_views_is_that_of_mmsegs_model_for_them(settings, split):
    from mmseg.models.segmentors import SegTTAModel

    model = learned(settings)
    views = views_of(settings, split)[1]
    balance(model, views[0])
    batches = [data.collate([view]) for view in views]
    theirs = SegTTAModel.__new__(SegTTAModel)
    torch.nn.Module.__init__(theirs)
    theirs.module = model.segmentor
    with pytest.warns(UserWarning, match="The shape of value will convert"):
        (expected,) = theirs.merge_preds([[model.predict(batch)[0] for batch in batches]])
    labels: Any = expected.pred_sem_seg
    found = model.predict_views([data.collate([view]) for view in views])
    assert torch.equal(found.pred_sem_seg.data, labels.data)
    assert len(found.pred_sem_seg.data.unique()) > 1
    single = model.predict_views([data.collate([views[0]])])
    assert not torch.equal(found.pred_sem_seg.data, single.pred_sem_seg.data)


def test_views_reach_the_numbers_of_a_cell(settings, make_ade, tmp_path):
    handle = open_data(f"ade20k={make_ade()}")
    changes = {"test_scales": [1.0, 1.5], "test_flip": True, "steps": 2}
    found = running.evaluate(tiny_source(), handle, settings.override(changes), Run(tmp_path / "out"))
    assert set(found) == {"mIoU", "mAcc", "aAcc"}


def test_areas_of_a_case_made_by_hand():
    """Two of three classes occur; ignored pixels count for none, whatever is predicted there."""
    from mmengine.structures import PixelData

    true = torch.tensor([[[0, 0, 1, 255], [0, 1, 1, 255]]])
    predicted = torch.tensor([[[0, 1, 1, 2], [0, 1, 0, 0]]])
    sample = SegDataSample(gt_sem_seg=PixelData(data=true), pred_sem_seg=PixelData(data=predicted))
    total = measure.areas(sample, 3)
    assert total.tolist() == [[2, 2, 0], [4, 4, 0], [3, 3, 0], [3, 3, 0]]
    found = measure.summary(total)
    assert found == pytest.approx({"mIoU": 50.0, "mAcc": 200 / 3, "aAcc": 200 / 3})
    assert np.isnan(measure.scores(total)["IoU"][2]), "a class that neither occurs nor is predicted has no IoU"


def test_zero_is_reduced_once(settings, tmp_path):
    """0 is ignored, 1 is the first class: a prediction of the first class everywhere is right where 1 is stored."""
    from mmengine.structures import PixelData

    for side in ("images", "annotations"):
        for folder in ("training", "validation"):
            (tmp_path / side / folder).mkdir(parents=True)
            picture = Image.new("RGB", (4, 1)) if side == "images" else Image.fromarray(np.array([[0, 1, 1, 2]], np.uint8))
            picture.save(tmp_path / side / folder / "a.png")
    packed = data.TestViews(ade20k.load(tmp_path, "val"), *data.test_views(settings, 32))[0][0]
    sample = packed["data_samples"]
    sample.pred_sem_seg = PixelData(data=torch.zeros(1, 1, 4, dtype=torch.long))
    assert measure.areas(sample, 2).tolist() == [[2, 0], [3, 1], [3, 0], [2, 1]]


@pytest.fixture
def _accelerate_forgets():
    """accelerate keeps the precision for a process's life."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_accelerate_forgets")
def test_predictions_are_in_fp32_after_a_training_in_bf16(settings, make_ade, tmp_path, monkeypatch):
    seen = []
    original = Segmenter.predict

    def predict(self, batch):
        found = original(self, batch)
        seen.append(found[0].seg_logits.data.dtype)
        return found

    monkeypatch.setattr(Segmenter, "predict", predict)
    run = Run(tmp_path / "out", precision="bf16")
    settings = settings.override({"relative_table": True, "layer_scale": 1.0})
    running.evaluate(tiny_source(), open_data(f"ade20k={make_ade()}"), settings, run)
    assert seen and set(seen) == {torch.float32}


@pytest.mark.parametrize("recipe", ["linear", "frozen"])
def test_a_frozen_backbone_stays_as_it_is(settings, make_ade, tmp_path, monkeypatch, recipe):
    from tasks.suite.segmentation import RECIPES

    small = {"image_size": 32, "batch_size": 2, "steps": 3, "warmup_steps": 1}
    config = RECIPES[recipe].override(small | ({"channels": 8, "aux_channels": 8} if recipe == "frozen" else {}))
    kept: list[Segmenter] = []
    original = running.build_segmenter
    monkeypatch.setattr(running, "build_segmenter", lambda *args, **named: kept.append(original(*args, **named)) or kept[-1])
    running.evaluate(tiny_source(), open_data(f"ade20k={make_ade()}"), config, Run(tmp_path / "out"))
    segmentor: Any = kept[0].train().segmentor
    assert not segmentor.backbone.backbone.training and segmentor.decode_head.training
    expected = dict(tiny_backbone().named_parameters())
    for name, parameter in segmentor.backbone.backbone.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_linear_head_is_batch_norm_and_one_matrix(settings):
    """Of the normed maps, resized to the image: DINOv2's linear segmentation."""
    from tasks.suite.segmentation import LINEAR

    config = LINEAR.override({"image_size": 32, "out_layers": [-2, -1], "test_mode": "whole"})
    model = learned(config)
    head: Any = model.segmentor.decode_head
    image = torch.randint(0, 256, (3, 32, 40), dtype=torch.uint8)
    found = scores(model, image)
    mean, std = model.segmentor.data_preprocessor.mean, model.segmentor.data_preprocessor.std
    pixels = ((image[[2, 1, 0]].float() - mean) / std).unsqueeze(0)
    with torch.no_grad():
        features = model.segmentor.backbone.backbone(pixels, (2, 3), norm=True)
        stacked = torch.cat([one.patches for one in features], dim=2)
        normed = (stacked - head.bn.running_mean) / (head.bn.running_var + 1e-5).sqrt() * head.bn.weight + head.bn.bias
        flat = normed @ head.conv_seg.weight[:, :, 0, 0].T + head.conv_seg.bias
    low = flat.transpose(1, 2).unflatten(2, (4, 5))
    expected = torch.nn.functional.interpolate(low, size=(32, 40), mode="bilinear")[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
