"""ImageNet's official tars, at a small scale: train in tars of classes, val by numbers, classes from the development kit."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mae_bench.core.errors import InputError
from tasks.data import imagenet
from tasks.handle import open_data

WNIDS = ("n02000002", "n01000001", "n03000003")
"""In the order of the development kit, which is not that of the names."""
TRUTH = (1, 3, 2, 1)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (value,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = {
        name: {f"{name}_{number}.JPEG": jpeg(60 * place + number) for number in range(2)} for place, name in enumerate(WNIDS)
    }
    (tmp_path / imagenet.TRAIN).write_bytes(tar({f"{name}.tar": tar(found) for name, found in inside.items()}))
    numbers = (2, 1, 4, 3)  # the official tar is in no order either
    (tmp_path / imagenet.VAL).write_bytes(tar({f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(50 * number) for number in numbers}))
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(1, WNIDS[0], 0), (2, WNIDS[1], 0), (3, WNIDS[2], 0), (4, "n00000004", 3)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    truth = "".join(f"{number}\n" for number in TRUTH).encode()
    kit = {f"{imagenet.KIT}/{imagenet.TRUTH}": truth, f"{imagenet.KIT}/{imagenet.META}": meta.getvalue()}
    (tmp_path / f"{imagenet.KIT}.tar.gz").write_bytes(tar(kit, "w:gz"))
    return tmp_path


def values(split) -> list[int]:
    return [np.asarray(split.image(index))[0, 0, 0].item() for index in range(len(split))]


def test_classes_are_in_the_order_of_names_as_released_networks_have_them(root):
    data = open_data(f"imagenet={root}")
    train, val = data.split("train"), data.split("val")
    assert data.classes == tuple(sorted(WNIDS))
    assert (values(train), train.labels) == ([60, 61, 0, 1, 120, 121], [0, 0, 1, 1, 2, 2])
    assert (values(val), val.labels) == ([50, 100, 150, 200], [1, 2, 0, 1])
    assert train.encoded(0).name == f"{WNIDS[1]}_0.JPEG in {root / imagenet.TRAIN}"


def test_the_development_kit_may_be_unpacked(root):
    with tarfile.open(root / f"{imagenet.KIT}.tar.gz") as kit:
        kit.extractall(root, filter="data")
    (root / f"{imagenet.KIT}.tar.gz").unlink()
    assert open_data(f"imagenet={root}").split("val").labels == [1, 2, 0, 1]


def test_what_torchvision_unpacks_is_the_same(root, tmp_path_factory, monkeypatch):
    """torchvision's ImageNet unpacks the tars into folders; the order of classes and the labels agree."""
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.imagenet import parse_train_archive

    other = tmp_path_factory.mktemp("theirs")
    monkeypatch.setattr("torchvision.datasets.imagenet._verify_archive", lambda *_: None)
    parse_train_archive(str(root), folder=str(other / "train"))
    theirs = ImageFolder(str(other / "train"))
    train = open_data(f"imagenet={root}").split("train")
    assert theirs.targets == train.labels and theirs.classes == list(train.classes)
    assert all(np.array_equal(np.asarray(theirs[i][0]), np.asarray(train.image(i))) for i in range(len(train)))


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: cut(root / imagenet.TRAIN, 5000), "is no plain tar, or cut off|is cut off"),
        (lambda root: cut(root / imagenet.VAL, 2000), "is no plain tar, or cut off|is cut off"),
        (lambda root: cut(root / f"{imagenet.KIT}.tar.gz", 100), "cannot be read"),
        (lambda root: (root / f"{imagenet.KIT}.tar.gz").unlink(), "which says the classes of"),
        (lambda root: (root / imagenet.VAL).unlink(), "has no ILSVRC2012_img_val.tar"),
        (lambda root: (root / imagenet.VAL).write_bytes(tar({"x.JPEG": b""})), "x.JPEG is no ILSVRC2012_val_00000001.JPEG"),
        (
            lambda root: (root / imagenet.VAL).write_bytes(tar({"ILSVRC2012_val_00000001.JPEG": b""})),
            "has 1 images and ILSVRC2012_devkit_t12 the classes of 4",
        ),
        (lambda root: (root / imagenet.TRAIN).write_bytes(tar({"x.JPEG": b""})), "x.JPEG is no tar of a class"),
        (
            lambda root: (root / imagenet.TRAIN).write_bytes(tar({"n01000001.tar": tar({}), "n02000002.tar": tar({"a": b"1"})})),
            "no image in class n01000001",
        ),
        (
            lambda root: (root / imagenet.TRAIN).write_bytes(tar({f"{name}.tar": tar({"a.JPEG": b"1"}) for name in WNIDS[:2]})),
            "classes n03000003 of ILSVRC2012_img_val.tar are not in",
        ),
    ],
)
def test_what_makes_the_tars_unusable_is_told_in_a_line(root, spoil, message):
    spoil(root)
    with pytest.raises(InputError, match=message) as caught:
        data = open_data(f"imagenet={root}")
        for which in ("train", "val"):
            data.split(which)
    assert "\n" not in str(caught.value)
