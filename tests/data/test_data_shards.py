"""Tar shards, as webdataset writes them: the same images and labels, in any order; damaged ones are refused in one line."""

import gc
import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import shards
from tasks.data._index import SUFFIX
from tasks.handle import open_data


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def sample(key: str, value: int, label: object) -> list[tuple[str, bytes]]:
    return [(f"{key}.png", png(value)), (f"{key}.cls", str(label).encode())]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training shards and one of validation, of classes 0 and 1; image i is of value i."""
    pack(tmp_path / "train-000000.tar", sample("a/0", 0, 0) + sample("a/1", 1, 1))
    pack(tmp_path / "train-000001.tar", sample("a/2", 2, 1))
    pack(tmp_path / "val-000000.tar", sample("b/3", 3, 0) + sample("b/4", 4, 1))
    return tmp_path


def values(split) -> list[int]:
    return [np.asarray(split.image(index))[0, 0, 0].item() for index in range(len(split))]


def test_images_and_labels_in_any_order(root):
    data = open_data(f"shards={root}")
    train, val = data.split("train"), data.split("val")
    assert (values(train), train.labels) == ([0, 1, 2], [0, 1, 1])
    assert (values(val), val.labels) == ([3, 4], [0, 1])
    assert data.kind == "classification" and data.classes == ("0", "1")
    assert np.asarray(train.image(2))[0, 0, 0] == 2 and np.asarray(train.image(0))[0, 0, 0] == 0
    assert {path.name for path in train.files()} == {"train-000000.tar", "train-000001.tar"}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_that_webdataset_writes_are_read_as_it_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    rng = np.random.default_rng(0)
    pictures = {f"{number:04d}": rng.integers(0, 255, (9, 7, 3), dtype=np.uint8) for number in range(11)}
    for which, keys in (("train", list(pictures)[:8]), ("val", list(pictures)[8:])):
        with webdataset.ShardWriter(str(tmp_path / f"{which}-%06d.tar"), maxcount=3, verbose=0) as writer:
            for key in keys:
                writer.write({"__key__": key, "png": pictures[key], "cls": int(key) % 2, "json": {"width": 7}})
    for which in ("train", "val"):
        split = open_data(f"shards={tmp_path}").split(which)
        paths = [str(path) for path in split.files()]
        theirs = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8").to_tuple("png", "cls"))
        assert len(theirs) == len(split)
        for index, (pixels, label) in enumerate(theirs):
            assert np.array_equal(np.asarray(split.image(index)), pixels)
            assert split.labels[index] == label
    del theirs
    gc.collect()  # webdataset leaves files for the garbage collector to close


def test_labels_by_name_and_from_json(tmp_path):
    for which in ("train", "validation"):
        members = [
            ("0.jpg", png(0)), ("0.json", json.dumps({"label": "dog", "width": 8}).encode()),
            ("1.x.png", png(9)), ("1.png", png(1)), ("1.json", b'{"cls": "cat"}'),
        ]  # fmt: skip
        pack(tmp_path / f"pets-{which}-00.tar", members)
    data = open_data(f"shards={tmp_path}")
    assert data.classes == ("cat", "dog")
    assert data.split("train").labels == data.split("val").labels == [1, 0]


def test_names_of_classes_are_read(root):
    before = open_data(f"shards={root}").fingerprint
    (root / "classes.txt").write_text("cat\ndog\n")
    data = open_data(f"shards={root}")
    assert data.classes == ("cat", "dog")
    assert data.fingerprint != before
    (root / "classes.txt").write_text("cat\n")
    with pytest.raises(InputError, match=r"names 1 classes, and there are labels 1"):
        open_data(f"shards={root}").split("train")


def test_the_index_is_made_once_and_again_when_a_shard_changes(root, monkeypatch):
    shards.load(root, "train")
    index = root / f".train{SUFFIX}"
    assert index.exists()
    with monkeypatch.context() as patch:
        patch.setattr(shards, "members", None)
        assert values(shards.load(root, "train")) == [0, 1, 2]
    pack(root / "train-000001.tar", sample("a/7", 7, 1))
    os.utime(root / "train-000001.tar", ns=(1, 1))
    assert values(shards.load(root, "train")) == [0, 1, 7]
    index.write_bytes(index.read_bytes()[:50])
    assert values(shards.load(root, "train")) == [0, 1, 7]
    np.savez(index, key=np.array([pickle.dumps], dtype=object))  # a pickle in it is never opened
    assert values(shards.load(root, "train")) == [0, 1, 7]


def test_the_index_of_a_folder_that_cannot_be_written_is_in_the_users_cache(root, monkeypatch):
    (root / f".train{SUFFIX}").mkdir()  # in its place, so that not even root can write it
    (root / f".train{SUFFIX}" / "x").touch()
    shards.load(root, "train")
    kept = list(Path(os.environ["XDG_CACHE_HOME"]).rglob(f"*{SUFFIX}"))
    assert len(kept) == 1
    monkeypatch.setattr(shards, "members", None)
    assert values(shards.load(root, "train")) == [0, 1, 2]


@pytest.mark.parametrize("length", [0, 700, 1536, 3000, "end", "garbage"])
def test_a_shard_that_is_cut_off_is_refused(root, length):
    path = root / "train-000000.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        end = max(member.offset_data + 512 for member in tar)
    if length == "garbage":
        path.write_bytes(content[:1024] + b"\x07" * 512 + content[1536:])
    else:
        path.write_bytes(content[: end if length == "end" else length])
    with pytest.raises(InputError, match=r"train-000000\.tar .*(cut off|damaged)[^\n]*$"):
        shards.load(root, "train")


def test_a_shard_that_shrinks_after_it_was_indexed_is_told(root):
    split = shards.load(root, "train")
    (root / "train-000001.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"train-000001\.tar ends before byte"):
        split.image(2)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("9.png", b"x")], r"no label for 9\.png; add a \.cls"),
        ([("9.png", b"x"), ("9.json", b'{"caption": 1}')], r"no label for 9\.png"),
        ([*sample("9", 0, 0), ("9.jpg", b"x")], r"9\.png and 9\.jpg have the same key"),
        (sample("9", 0, 0) + sample("9", 0, 0), r"9\.png and 9\.png have the same key"),
        (sample("9", 0, "cat"), "labels 0, 1 are numbers and cat names"),
        (sample("9", 0, 3), r"no image of class 2, of 4"),
        (sample("9", 0, 999999999), r"no image of class 2, 3"),
        ([("9.png", b"x"), ("9.cls", b"")], r"9\.cls is empty"),
        ([("9.png", b"x"), ("9.cls", b"\xff")], r"9\.cls is no label"),
        ([("9.png", b"x"), ("9.json", b"{")], r"9\.json is no label"),
    ],
)
def test_what_makes_shards_unusable_is_told_in_a_line(root, members, message):
    pack(root / "train-000002.tar", members)
    with pytest.raises(InputError, match=message) as caught:
        shards.load(root, "train")
    assert "\n" not in str(caught.value)


def test_no_image_no_shard_or_a_shard_missing(root):
    pack(root / "train-000003.tar", [])
    with pytest.raises(InputError, match="shards 2 of train are missing"):
        open_data(f"shards={root}")
    for path in root.glob("train-*.tar"):
        path.unlink()
    with pytest.raises(InputError, match=r"has no train-\*\.tar; the layout is train-000000\.tar"):
        open_data(f"shards={root}")
    pack(root / "train-000000.tar", [("readme.txt", b"hello")])
    with pytest.raises(InputError, match="no image in the shards of train"):
        shards.load(root, "train")


def test_a_damaged_image_names_its_shard(root):
    pack(root / "train-000002.tar", [("c.png", png(5)[:40]), ("c.cls", b"1")])
    with pytest.raises(InputError, match=r"cannot decode image c\.png in .*train-000002\.tar"):
        shards.load(root, "train").image(3)
