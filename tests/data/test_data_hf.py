"""Data sets that Hugging Face's `datasets` saved: the same images and labels, columns found by their type."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from mae_bench.core.errors import EnvironmentFault, InputError
from tasks.handle import open_data

datasets = pytest.importorskip("datasets")


def png(value: int) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (value,) * 3).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def save(root, features=None, labels=(0, 1, 1), **more):
    features = features or {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])}
    columns = {"picture": [png(value) for value in range(len(labels))], "kind": list(labels), **more}
    columns = {name: column for name, column in columns.items() if name in features}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.DatasetDict(train=made, test=made.select([2, 0] if len(made) > 2 else [0])).save_to_disk(str(root))


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def test_images_and_labels_as_datasets_gives_them(tmp_path):
    save(tmp_path)
    data = open_data(f"hf={tmp_path}")
    train, val = data.split("train"), data.split("val")
    assert data.classes == ("cat", "dog") and data.kind == "classification"
    assert (train.labels, val.labels) == ([0, 1, 1], [1, 0])
    theirs = datasets.load_from_disk(str(tmp_path))["train"]
    for index in (2, 0, 1):
        assert np.array_equal(np.asarray(train.image(index)), np.asarray(theirs[index]["picture"].convert("RGB")))
    assert len(data.fingerprint) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (0, -1, 1)}, "no label for images 1"),
        ({"labels": ()}, "has no image|cannot be opened"),
        ({"features": {"picture": datasets.Image(), "kind": datasets.Value("int64")}}, "no column of type ClassLabel"),
        ({"features": {"kind": datasets.ClassLabel(names=["a", "b"])}}, "no column of type Image"),
        (
            {
                "features": {
                    "picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"]), "b": datasets.Image()
                },
                "b": [None, None, None],
            },
            "columns picture, b are all of type Image",
        ),
    ],
)  # fmt: skip
def test_columns_and_labels_have_to_be_clear(tmp_path, changes, message):
    if changes.get("labels") == ():
        made = datasets.Dataset.from_dict(
            {"picture": [], "kind": []},
            features=datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])}),
        )
        datasets.DatasetDict(train=made, test=made).save_to_disk(str(tmp_path))
    else:
        save(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        open_data(f"hf={tmp_path}").split("train")


def test_damaged_files_and_wrong_folders_are_told_in_a_line(tmp_path):
    save(tmp_path)
    arrow = next((tmp_path / "train").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 3])
    with pytest.raises(InputError, match="cannot be opened") as caught:
        open_data(f"hf={tmp_path}").split("train")
    assert "\n" not in str(caught.value)
    (tmp_path / "train/dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="cannot be opened"):
        open_data(f"hf={tmp_path}").split("train")
    with pytest.raises(InputError, match="it is one split, save them together"):
        open_data(f"hf={tmp_path / 'test'}")
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(InputError, match="has no folder validation/"):
        open_data(f"hf={tmp_path}")


def test_an_empty_image_is_told(tmp_path):
    save(tmp_path, picture=[png(0), None, png(2)])
    with pytest.raises(InputError, match=r"image 1 in .* is empty"):
        open_data(f"hf={tmp_path}").split("train").image(1)


def test_without_the_package_the_line_says_how_to_install_it(tmp_path, monkeypatch):
    save(tmp_path)
    assert json.loads((tmp_path / "dataset_dict.json").read_text())["splits"] == ["train", "test"]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EnvironmentFault, match=r'data set hf needs datasets.*pip install "mae-bench\[hf\]"'):
        open_data(f"hf={tmp_path}").split("train")
