import hashlib
import json
import os
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.progress import Silent
from tasks.handle import open_data
from tasks.scenes import demo as writing
from tasks.scenes import sizes, write_demo
from tasks.scenes.draw import alpha_matte, open_pools

pytestmark = pytest.mark.slow

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def sources(tiny_data) -> dict[str, list[int]]:
    return json.loads((tiny_data["folder"].parent / writing.MANIFEST).read_text())["sources"]


def digest(root: Path) -> str:
    lines = [
        f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in root.rglob("*") if path.is_file()
    ]
    return "\n".join(sorted(lines))


def test_image_folder(tiny_data):
    data = open_data(f"folder={tiny_data['folder']}")
    assert data.classes == tuple(sorted(NAMES))
    for split, each in ((data.split("train"), 20), (data.split("val"), 8)):
        assert np.bincount(split.labels).tolist() == [each] * 10
        assert split.image(7).size == (sizes.FOLDER_SIDE, sizes.FOLDER_SIDE)


# pycocotools 2.0 hands numpy 2 an array in a way that numpy warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_masks_boxes_and_areas_agree(tiny_data):
    tools = pytest.importorskip("pycocotools.coco")
    data = open_data(f"coco={tiny_data['coco']}")
    assert data.classes == NAMES
    for split, number in ((data.split("train"), 24), (data.split("val"), 12)):
        assert len(split) == number and split.has_masks and not split.skipped and not split.clipped
        assert split.image(0).size == (sizes.SCENE_SIDE, sizes.SCENE_SIDE)
        with redirect_stdout(StringIO()):
            api = tools.COCO(str(split.json_path))
        for items in split.annotations.values():
            masks = [api.annToMask(item) for item in items]
            assert np.sum(masks, axis=0).max() == 1
            for item, mask in zip(items, masks, strict=True):
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
                assert (item["bbox"], item["area"]) == (box, mask.sum())


def test_ade20k_maps_have_digits_background_and_a_thin_border(tiny_data):
    data = open_data(f"ade20k={tiny_data['ade20k']}")
    assert data.classes == (*NAMES, "background")
    for split, number in ((data.split("train"), 24), (data.split("val"), 12)):
        assert len(split) == number and split.image(0).size == (sizes.SCENE_SIDE, sizes.SCENE_SIDE)
        maps = np.stack([np.asarray(Image.open(label_map)) for _, label_map in split.pairs])
        assert maps.max() == 11
        assert 0.02 < (maps == 0).mean() < 0.12
        assert (maps == 11).mean() > 0.6
        # Between a digit and the background there is always a border.
        assert not ((maps[:, :, 1:] == 11) & (maps[:, :, :-1] % 11 != 0)).any()


def test_no_digit_is_in_train_and_val_in_any_data_set(tiny_data):
    sides: dict[bool, set[int]] = {True: set(), False: set()}
    for path, numbers in sources(tiny_data).items():
        assert numbers, path
        sides["train" in path].update(numbers)
    assert not sides[True] & sides[False]
    assert max(sides[True]) < sizes.FIRST_HELD_OUT_DIGIT <= min(sides[False])


def test_sources_name_the_digits_that_are_in_the_image(tiny_data):
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    truth = digits.target
    for path, numbers in sources(tiny_data).items():
        if path.startswith("folder/"):
            assert [NAMES[truth[number]] for number in numbers] == [Path(path).parent.name]
    split = open_data(f"coco={tiny_data['coco']}").split("val")
    for image in split.images:
        labels = [item["category_id"] - 1 for item in split.annotations[image["id"]]]
        assert [truth[number] for number in sources(tiny_data)[f"coco/val2017/{image['file_name']}"]] == labels


def test_photographs_are_split_without_overlap():
    from sklearn.datasets import load_sample_images

    pools = open_pools()
    samples: Any = load_sample_images()
    for whole, left, right in zip(samples.images, pools["train"].photographs, pools["val"].photographs, strict=True):
        assert np.array_equal(np.concatenate([left, right], axis=1), whole)
        assert min(*left.shape[:2], *right.shape[:2]) > sizes.LARGEST_CROP


def test_written_again_into_an_empty_folder_it_is_the_same_to_the_byte(tiny_data, tmp_path):
    again = write_demo(tmp_path, scale="tiny")
    assert digest(again["folder"].parent) == digest(tiny_data["folder"].parent)


@pytest.mark.parametrize("side", [24, 40, 56])
def test_digits_are_as_long_as_asked_and_smooth(side):
    rng = np.random.default_rng(0)
    for ink in open_pools()["train"].digits[:40]:
        alpha = alpha_matte(ink, side, rng)
        assert side * 0.85 <= max(alpha.shape) <= side * 1.1
        assert 0.1 < (alpha > 0.5).mean() < 0.95
        assert ((alpha > 0) & (alpha < 1)).any()


class Counter(Silent):
    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, title: str, total: int, done: int = 0) -> None:
        self.total = total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps


def test_R05_remains_of_a_killed_process_go_progress_is_complete_and_a_second_call_does_nothing(tmp_path):
    old, young = tmp_path / ".demo.partial-old", tmp_path / ".demo.partial-young"
    for folder in (old, young):
        (folder / "folder").mkdir(parents=True)
    os.utime(old, (0, 0))
    counter = Counter()
    root = tmp_path / "demo"
    paths = write_demo(root, scale="tiny", progress=counter)
    assert counter.done == counter.total == 10 * 28 + 2 * 36
    before = (root / writing.MANIFEST).stat().st_mtime_ns
    start = time.perf_counter()
    assert write_demo(root, scale="tiny", progress=counter) == paths
    assert time.perf_counter() - start < 2
    assert counter.done == counter.total and (root / writing.MANIFEST).stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "demo"]


def test_U10_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not demo data; choose another folder"):
        write_demo(tmp_path, scale="tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_U10_a_file_in_the_place(tmp_path):
    (tmp_path / "demo").write_text("x")
    with pytest.raises(ConfigError, match="is not demo data"):
        write_demo(tmp_path / "demo", scale="tiny")


@pytest.mark.parametrize("change", [{"scale": "demo"}, {"generator": 0}])
def test_U10_other_demo_data_are_not_overwritten(tmp_path, change):
    manifest = {"generator": sizes.GENERATOR, "scale": "tiny", "files": 0} | change
    (tmp_path / writing.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="is asked for; choose another folder or delete it"):
        write_demo(tmp_path, scale="tiny")


def test_part_of_the_demo_data_is_said(tmp_path):
    (tmp_path / writing.MANIFEST).write_text(json.dumps({"generator": sizes.GENERATOR, "scale": "tiny", "files": 7}))
    with pytest.raises(ConfigError, match="has 0 of the 7 files"):
        write_demo(tmp_path, scale="tiny")


def test_unknown_scale(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown scale 'tinny'.*did you mean tiny"):
        write_demo(tmp_path / "x", scale="tinny")


def test_R05_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    class Broken(Counter):
        def advance(self, steps: int = 1, note: str = "") -> None:
            super().advance(steps)
            if self.done == 100:
                raise OSError(28, "No space left on device")

    with pytest.raises(EnvironmentFault, match="No space left on device"):
        write_demo(tmp_path / "demo", scale="tiny", progress=Broken())
    assert not list(tmp_path.iterdir())
