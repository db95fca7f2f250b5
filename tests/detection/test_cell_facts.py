"""What the record and the folder of a cell of detection say of it, and what it refuses."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from tasks.handle import open_data
from tasks.suite import detection

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


def network(width: int = 768, depth: int = 12, patch: int = 16) -> Any:
    """What is asked of a source."""
    return SimpleNamespace(spec=SimpleNamespace(embed_dim=width, depth=depth, patch_size=patch))


def test_weights_cut_over_processes_are_refused(source, make_coco, tmp_path):
    pytest.importorskip("detectron2")
    run = Run(tmp_path / "out", sharded=True)
    with pytest.raises(ConfigError, match="detection: weights cannot be sharded, since each process predicts by itself"):
        detection.evaluate(source, open_data(f"coco={make_coco()}"), detection.RECIPES["demo"], run)


@pytest.mark.parametrize(
    ("recipe", "width", "depth", "said"),
    [
        ("paper", 768, 12, None),
        ("paper", 384, 12, "recipe paper has the values of ViT-B, and this network has width 384 and depth 12"),
        ("paper-cascade-large", 1024, 24, None),
        ("paper-lvis-huge", 1024, 24, "recipe paper-lvis-huge has the values of ViT-H"),
        ("fast", 192, 12, None),
    ],
)
def test_values_of_another_size_are_told(recipe, width, depth, said, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "64")
    source = network(width, depth)
    found = detection.deviations(recipe, detection.RECIPES[recipe], source, Run(tmp_path))
    assert (not found) if said is None else found[0].startswith(said)


@pytest.mark.parametrize(
    ("changes", "device", "world", "images"),
    [({}, "cuda", "8", None), ({}, "cpu", "2", 32), ({"accumulate": 4}, "cuda", "1", 16), ({"batch_size": 16}, "cuda", "1", 16)],
)
def test_smaller_batch_statistics_are_told(changes, device, world, images, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", world)
    config = detection.RECIPES["paper-mae"].override(changes)
    found = detection.deviations("paper-mae", config, network(), Run(tmp_path, device=device))
    said = [line for line in found if not line.startswith("the mask loss")]
    assert said == ([] if images is None else [f"batch norms see {images} images at once; 64 in arXiv 2111.11429"])


@pytest.mark.parametrize(
    ("recipe", "changes", "world", "images"),
    [
        ("paper", {}, "64", 1),
        ("paper", {}, "1", 64),
        ("paper-lvis", {}, "8", 8),
        ("paper-lvis", {"accumulate": 8}, "8", 1),
        ("paper-lvis-cascade", {"accumulate": 2, "masks": False}, "8", 4),
        ("paper", {"reference_batch": 64, "batch_size": 16}, "8", 2),
        ("fast", {}, "1", 1),
    ],
)
def test_more_images_at_once_than_one_are_told(recipe, changes, world, images, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", world)
    found = detection.deviations(recipe, detection.RECIPES[recipe].override(changes), network(), Run(tmp_path))
    masks = f"the mask loss is averaged over the masks of {images} images at once; of 1 in ViTDet"
    classes = f"federated classes are drawn for {images} images at once; for 1 in ViTDet"
    said = [masks] * changes.get("masks", True) + [classes] * ("lvis" in recipe)
    assert list(found) == (said if images > 1 else [])


def test_nothing_is_said_of_losses_that_are_not_there(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"x")
    measured = detection.RECIPES["paper"].override({"weights": str(tmp_path / "x.pth"), "steps": 0})
    (line,) = detection.deviations("paper", measured, network(), Run(tmp_path))
    assert line.startswith("the detector began as")
    (tmp_path / "per_class.json").write_text('{"AP_box": {}}')  # data without masks
    assert detection.deviations("paper", detection.RECIPES["paper"], network(), Run(tmp_path)) == ()


@pytest.mark.parametrize(
    ("recipe", "patch", "changes", "said"),
    [
        ("paper", 8, {}, "patches of 8 pixels give the pyramid strides 4 to 32 and anchors of 32 to 256 px"),
        ("paper", 32, {}, "patches of 32 pixels give the pyramid strides 8 to 128 and anchors of 64 to 1024 px"),
        (
            "paper",
            7,
            {"head.anchor_scales": [4, 6]},
            "patches of 8 pixels give the pyramid strides 4 to 32 and anchors of 16 to 192",
        ),
        ("paper", 14, {}, None),
        ("paper-mae", 8, {}, None),
        ("fast", 8, {}, None),
    ],
)
def test_other_strides_are_told(recipe, patch, changes, said, tmp_path, monkeypatch):
    pytest.importorskip("detectron2")
    monkeypatch.setenv("WORLD_SIZE", "64")
    config = detection.RECIPES[recipe].override(changes)
    found = detection.deviations(recipe, config, network(patch=patch), Run(tmp_path, device="cuda"))
    assert [line.partition("; ")[0].removesuffix(" px") for line in found] == ([] if said is None else [said.removesuffix(" px")])
    assert all(line.endswith("; 4 to 64 and 32 to 512 px in ViTDet") for line in found)


def test_a_line_about_each_recipe():
    assert set(detection.ABOUT) == set(detection.RECIPES)


def test_unlike_seeds_train_unlike_detectors_and_like_ones_the_same(source, make_coco, settings, tmp_path):
    pytest.importorskip("detectron2")
    from tasks.handle import open_data

    data = open_data(f"coco={make_coco()}")

    def losses(name, seed):
        detection.evaluate(source, data, settings, Run(out=tmp_path / name, seed=seed))
        return [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    first = losses("a", 0)
    assert first == losses("b", 0)
    others = [losses(f"seed{seed}", seed) for seed in (1, 2)]
    assert first[0] != others[0][0] != others[1][0] != first[0]


def test_lines_of_a_training_now_resumed_stay(tmp_path, monkeypatch):
    """A training has named an image, and was killed in the middle of another line; annotations were corrected in between."""
    pytest.importorskip("detectron2")
    from tasks.edges.detection_run import note_skipped

    path, run = tmp_path / "skipped.jsonl", Run(tmp_path)
    damaged = {"split": "train", "index": 4, "reason": "cannot decode", "by": "training"}
    gone = {"split": "val", "id": 9, "kind": "no box", "by": "annotations"}
    path.write_text(f'{json.dumps(gone)}\n{json.dumps(damaged)}\n{{"split": "tr')
    split: Any = SimpleNamespace(skipped=[{"id": 3, "kind": "no mask"}])
    wanted = [damaged, {"split": "train", "id": 3, "kind": "no mask", "by": "annotations"}]
    for _ in range(2):
        note_skipped(run, train=split)
        assert [json.loads(line) for line in path.read_text().splitlines()] == wanted
    split.skipped.clear()
    note_skipped(run, train=split)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [damaged]
    # Of several processes, one writes.
    monkeypatch.setenv("RANK", "1")
    split.skipped.append({"id": 5, "kind": "no mask"})
    note_skipped(run, train=split)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [damaged]


def test_a_resumed_training_keeps_the_names_of_damaged_images(source, make_coco, settings, tmp_path):
    pytest.importorskip("detectron2")
    from tasks.handle import open_data

    root = make_coco(train=4)
    place = root / "annotations" / "instances_train.json"
    content = json.loads(place.read_text())
    content["annotations"][2]["bbox"] = [5, 5, -3, 10]
    place.write_text(json.dumps(content))
    (root / "train" / "1.png").write_bytes(b"<html>")
    data, run = open_data(f"coco={root}"), Run(out=tmp_path / "run", seed=1, max_skipped=0.5)
    told = []
    for _ in range(2):  # the second time the finished training is found
        detection.evaluate(source, data, settings, run)
        told.append([json.loads(line) for line in (run.out / "skipped.jsonl").read_text().splitlines()])
    assert told[0] == told[1] or sorted(map(str, told[0])) == sorted(map(str, told[1]))
    assert sorted(line["by"] for line in told[1]) == ["annotations", "training"]


def test_a_record_counts_the_annotations_that_were_left_out(source, tmp_path):
    lines = [{"split": which, "id": number, "kind": "no box", "by": "annotations"} for number, which in enumerate(("train",) * 2)]
    lines.append({"split": "val", "id": 1, "kind": "no mask", "by": "annotations"})
    lines.append({"split": "train", "index": 4, "reason": "cannot decode", "by": "training"})
    (tmp_path / "skipped.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = detection.deviations("demo", detection.RECIPES["demo"], source, Run(tmp_path))
    assert found == ("annotations left out: 2 of train and 1 of val, named in skipped.jsonl",)
