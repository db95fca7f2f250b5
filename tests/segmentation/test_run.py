"""Whole cells on folders made here: training, evaluation, what they leave, and the number against an independent count."""

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.contract import BackboneSpec
from mae_bench.core import metrics
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError
from mae_bench.core.run import Run
from tasks.handle import open_data
from tasks.suite import segmentation
from tests.segmentation.conftest import NAMES, rectangles, tiny_source


def missing_mmseg(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("tasks.edges.segmentation", "mmseg"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mmseg", None)
    import tasks.edges

    for name in [name for name in vars(tasks.edges) if name.startswith("segmentation")]:
        monkeypatch.delattr(tasks.edges, name)


def test_without_mmseg_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    """A message of the environment, before anything of the data or the backbone is touched."""
    monkeypatch.delitem(sys.modules, "backbones.adapters.to_mmseg", raising=False)
    missing_mmseg(monkeypatch)
    with pytest.raises(EnvironmentFault, match=r'task segmentation needs mmseg, .*pip install "mae-bench\[segmentation\]"'):
        segmentation.evaluate(tiny_source(), Any, segmentation.RECIPES["demo"], Run(tmp_path))  # type: ignore[arg-type]


def test_a_broken_opencv_is_named(monkeypatch, tmp_path):
    missing_mmseg(monkeypatch)
    broken = ModuleType("tasks.edges.segmentation_mmseg")

    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    broken.__getattr__ = fail  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "tasks.edges.segmentation_mmseg", broken)
    with pytest.raises(EnvironmentFault, match=r"task segmentation: libGL\.so\.1: .*; install what is named there"):
        segmentation.evaluate(tiny_source(), Any, segmentation.RECIPES["demo"], Run(tmp_path))  # type: ignore[arg-type]


def test_settings_load_neither_torch_nor_mmseg():
    script = "import sys, tasks.suite.segmentation; print([n for n in ('torch', 'mmseg', 'mmengine', 'cv2') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recipes():
    paper = segmentation.RECIPES["paper"]
    assert (paper.lr, paper.weight_decay, paper.layer_decay, paper.drop_path) == (1e-4, 0.05, 0.65, 0.1)
    assert (paper.batch_size, paper.steps, paper.warmup_steps, paper.image_size) == (16, 160_000, 1500, 512)
    assert segmentation.RECIPES["demo"].flip == 0.0, "digits are not mirror-symmetric"
    assert {metric.name for metric in segmentation.METRICS} == {"mIoU", "mAcc", "aAcc"}


@pytest.mark.edge
class TestCells:
    @pytest.fixture(autouse=True)
    def _needs_mmseg(self):
        pytest.importorskip("tasks.edges.segmentation_run")

    def run(self, root, settings, out, *, seed=0, **wanted):
        return segmentation.evaluate(tiny_source(**wanted), open_data(f"ade20k={root}"), settings, Run(out, seed=seed))

    @pytest.mark.parametrize("patch", [8, 16])
    def test_three_steps_and_evaluation(self, make_ade, settings, tmp_path, patch):
        out = tmp_path / "out"
        found = self.run(make_ade(), settings, out, patch=patch)
        assert set(found) == {metric.name for metric in segmentation.METRICS}
        assert all(0 <= value <= 100 for value in found.values())
        assert len(metrics.read(out, "loss")) == 3
        report = json.loads((out / "per_class.json").read_text())
        assert report["summary"] == found
        assert [row["class"] for row in report["classes"]] == list(NAMES)
        classes = dict(segmentation.by_class(out))
        assert list(classes) == list(NAMES) and set(classes[NAMES[0]]) == {"IoU", "Acc"}
        known = [values["IoU"] for values in classes.values() if values["IoU"] is not None]
        assert found["mIoU"] == pytest.approx(np.mean(known))
        with Image.open(out / "predictions.png") as page:
            page.load()
            assert page.width > 400 and page.height > 300

    def test_equal_seeds_equal_losses(self, make_ade, settings, tmp_path):
        root = make_ade()
        first = self.run(root, settings, tmp_path / "a", seed=1)
        again = self.run(root, settings, tmp_path / "b", seed=1)
        self.run(root, settings, tmp_path / "c", seed=2)
        losses = [metrics.read(tmp_path / name, "loss") for name in "abc"]
        assert losses[0] == losses[1] != losses[2]
        assert first == again

    def test_more_steps_learn_the_rectangles(self, make_ade, settings, tmp_path):
        """All ground gives 25 %."""
        changes = {"image_size": 64, "batch_size": 4, "steps": 40, "lr": 1e-2, "layer_decay": 1.0, "photometric": False}
        found = self.run(make_ade(), settings.override({**changes, "resize_ratio": (1.0, 1.0), "channels": 16}), tmp_path / "out")
        assert found["mIoU"] > 40

    def test_number_equals_an_independent_count(self, make_ade, settings, tmp_path, monkeypatch):
        from tasks.edges import segmentation_eval

        seen = []
        original = segmentation_eval.areas
        monkeypatch.setattr(segmentation_eval, "areas", lambda sample, count: seen.append(sample) or original(sample, count))
        found = self.run(make_ade(), settings, tmp_path / "out")
        confusion = np.zeros((3, 3), np.int64)
        for number, sample in enumerate(seen):
            stored = rectangles(3, 1)[number]
            predicted = sample.pred_sem_seg.data[0].numpy()
            assert predicted.shape == stored.shape
            for true, guess in zip(stored[stored > 0] - 1, predicted[stored > 0], strict=True):
                confusion[true, guess] += 1
        hits = np.diag(confusion)
        iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
        assert found["mIoU"] == pytest.approx(100 * iou.mean(), abs=1e-9)
        assert found["mAcc"] == pytest.approx(100 * (hits / confusion.sum(1)).mean(), abs=1e-9)
        assert found["aAcc"] == pytest.approx(100 * hits.sum() / confusion.sum(), abs=1e-9)

    def test_number_is_the_one_mmsegs_metric_reports(self, make_ade, settings, tmp_path, monkeypatch):
        from tasks.edges import segmentation_eval
        from tasks.edges.segmentation_mmseg import IoUMetric

        metric = IoUMetric(iou_metrics=["mIoU"])
        metric.dataset_meta = {"classes": NAMES}
        original = segmentation_eval.areas

        def both(sample, count):
            metric.process({}, [sample.to_dict()])
            return original(sample, count)

        monkeypatch.setattr(segmentation_eval, "areas", both)
        found = self.run(make_ade(), settings, tmp_path / "out")
        assert {name: round(value, 2) for name, value in found.items()} == pytest.approx(metric.evaluate(3), abs=0.006)

    def test_ignored_pixels_neither_count_nor_are_told_apart(self, make_ade, settings, tmp_path):
        """The strip along the top holds no class: of each image 37 of 40 rows count."""
        out = tmp_path / "out"
        self.run(make_ade(), settings, out)
        rows = json.loads((out / "per_class.json").read_text())["classes"]
        assert sum(row["pixels_true"] for row in rows) == sum(row["pixels_predicted"] for row in rows) == 3 * 37 * 56

    def test_S09_a_class_absent_from_val_is_left_out_of_the_mean(self, make_ade, settings, tmp_path, monkeypatch):
        """It stays in when it is predicted where another class is, with an IoU of zero, as in mmseg."""
        val = [np.where(labels == 3, 1, labels).astype(np.uint8) for labels in rectangles(3, 1)]
        root = make_ade({"training": rectangles(6, 0), "validation": val})
        out = tmp_path / "out"
        found = self.run(root, settings, out)
        rows = {row["class"]: row for row in json.loads((out / "per_class.json").read_text())["classes"]}
        assert rows["blue"]["pixels_true"] == 0 and rows["blue"]["Acc"] is None
        counted = [row["IoU"] for row in rows.values() if row["IoU"] is not None]
        assert (rows["blue"]["IoU"] is None) == (rows["blue"]["pixels_predicted"] == 0)
        assert found["mIoU"] == pytest.approx(np.mean(counted))

    def test_other_sizes_and_more_classes_than_images(self, make_ade, settings, tmp_path):
        train = rectangles(3, 0, size=(90, 60)) + rectangles(2, 1, size=(33, 121))
        root = make_ade({"training": train, "validation": rectangles(2, 2, size=(48, 64))}, classes=tuple("abcdefghijkl"))
        changes = {"batch_size": 6, "test_mode": "whole"}
        assert 0 <= self.run(root, settings.override(changes), tmp_path / "out", patch=16)["mIoU"] <= 100

    @pytest.mark.parametrize("folder", ["training", "validation"])
    def test_S06_labels_that_are_all_ignored(self, make_ade, settings, tmp_path, folder):
        """Said before anything is trained: a loss of zero would teach nothing, and there is nothing to measure."""
        maps = {name: rectangles(2, 0) for name in ("training", "validation")}
        maps[folder] = [np.zeros((40, 40), np.uint8)] * 2
        with pytest.raises(InputError, match=f"{folder}: no pixel has a class"):
            self.run(make_ade(maps), settings, tmp_path / "out")
        assert not (tmp_path / "out/metrics.jsonl").exists()

    def test_one_class_is_no_segmentation(self, make_ade, settings, tmp_path):
        ones = [np.ones((40, 40), np.uint8)] * 2
        root = make_ade({"training": ones, "validation": ones}, classes=("all",))
        with pytest.raises(InputError, match="needs at least two classes"):
            self.run(root, settings, tmp_path / "out")

    def test_processes_that_cannot_train_are_refused(self, make_ade, settings, tmp_path, monkeypatch):
        from dataclasses import replace

        from tasks.edges import segmentation_run

        handle, run = open_data(f"ade20k={make_ade()}"), Run(tmp_path / "out")
        with pytest.raises(ConfigError, match="weights cannot be sharded, since each process predicts by itself"):
            segmentation.evaluate(tiny_source(), handle, settings, replace(run, sharded=True))
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match=r"batch_size=3 is 1\.5 images for each of 2 processes.*at least 4"):
            segmentation.evaluate(tiny_source(), handle, settings.override({"batch_size": 3}), run)
        monkeypatch.delenv("WORLD_SIZE")
        seen = []
        monkeypatch.setattr(segmentation_run, "train", lambda training, _: seen.append(training.split_unit))
        segmentation.evaluate(tiny_source(), handle, settings, run)
        assert seen == [0], "a batch that is too large is an error with advice: halved, its batch norms would differ"

    def test_a_finished_training_is_only_measured_again(self, make_ade, settings, tmp_path):
        root, out = make_ade(), tmp_path / "out"
        first = self.run(root, settings, out)
        (out / "per_class.json").unlink()
        assert self.run(root, settings, out) == first
        assert len(metrics.read(out, "loss")) == 3


@pytest.mark.edge
def test_S10_predictions_of_windows_have_the_size_of_the_image(settings):
    """A sliding window sees whole crops of training size, and its predictions come back at the image's own size."""
    model = pytest.importorskip("tasks.edges.segmentation_model")
    from tasks.edges.segmentation_mmseg import SegDataSample
    from tests.segmentation.conftest import tiny_backbone

    segmenter = model.build_segmenter(tiny_backbone(), settings, 3).eval()
    sizes = []
    segmenter.segmentor.backbone.register_forward_hook(lambda module, images, maps: sizes.append(tuple(images[0].shape[-2:])))
    for size in ((32, 43), (13, 128), (32, 32)):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        sample = SegDataSample(metainfo={"ori_shape": (50, 70), "img_shape": size})
        (predicted,) = segmenter.predict({"inputs": [image], "data_samples": [sample]})
        assert predicted.pred_sem_seg.shape == (50, 70)
    assert set(sizes) == {(32, 32)}


@pytest.mark.edge
def test_picture_of_many_classes_and_odd_names():
    picture = pytest.importorskip("tasks.edges.segmentation_picture")
    numbers = np.arange(150, dtype=np.int64).reshape(10, 15)
    names = tuple(f"käse <b>{number}</b> 猫" for number in range(150))
    example = picture.Example(Image.new("RGB", (15, 10)), numbers, numbers)
    page = picture.draw([example], names, picture.class_colours(150))
    assert page.height == picture.LINE * (picture.MOST_NAMES + 2)
    colours = picture.class_colours(3, ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    assert colours[1].tolist() == [4, 5, 6] and colours[255].tolist() == [0, 0, 0]


def test_crops_are_whole_patches(settings):
    for patch, side in ((8, 32), (16, 32), (14, 42)):
        spec = BackboneSpec("x", 16, 4, patch, 1, (64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        assert segmentation.dense_options(settings, spec).image_size == (side, side)
