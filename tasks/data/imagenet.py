"""ImageNet-1k as image-net.org gives it: the official tars, read in place."""

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, some
from tasks.data._index import Arrays, indexed, pack, unpack
from tasks.data._tar_images import TarImages
from tasks.data._tars import Member, inner_members, members
from tasks.images import DAMAGED

TRAIN, VAL, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12"

INFO = Info(
    name="imagenet",
    kind="classification",
    description="ImageNet-1k (ILSVRC2012) as its official tars, without unpacking them",
    layout=f"{TRAIN}\n{VAL}\n{KIT}.tar.gz (or unpacked)",
    licence="research and education only, by registration at image-net.org",
)

# Names in the development kit (its readme.txt, sections 2 and 3).
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"
VAL_IMAGE = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG")
CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar")
VERSION = 1
"""Raised when the index of equal tars comes out different."""


def check(root: Path) -> None:
    """Raise InputError unless the tars and the development kit are there."""
    for name in (TRAIN, VAL):
        if not (root / name).is_file():
            raise InputError(f"{root} has no {name}; the layout is {'; '.join(INFO.layout.splitlines())}")
    _kit(root)


def load(root: Path, which: Which) -> TarImages:
    """List one split; the tars are read through the first time, and an index of them is kept (`_index.indexed`).

    Classes are in the order of their WordNet numbers, as in a folder that torchvision reads, and as released networks have them.

    Raises:
        InputError: a tar is cut off, or the tars and the development kit do not fit each other.
    """
    if which == "train":
        return _split(root / TRAIN, _index(root, TRAIN, lambda: _train(root / TRAIN)), ())
    train = _index(root, TRAIN, lambda: _train(root / TRAIN))
    classes = unpack(train["classes"])
    return _split(root / VAL, _index(root, VAL, lambda: _val(root, classes), beside=(root / TRAIN, _kit(root))), (_kit(root),))


def _split(tar: Path, found: Arrays, beside: tuple[Path, ...]) -> TarImages:
    return TarImages(
        [tar], found["places"], unpack(found["names"]), found["labels"].tolist(), tuple(unpack(found["classes"])), beside
    )


def _index(root: Path, tar: str, build: Callable[[], Arrays], beside: tuple[Path, ...] = ()) -> Arrays:
    return indexed(root, tar.removesuffix(".tar"), [root / tar, *beside], VERSION, build)


def _arrays(found: list[Member], labels: list[int], classes: list[str]) -> Arrays:
    return {
        "places": np.array([(0, member.offset, member.size) for member in found], np.int64),
        "names": pack(member.name for member in found),
        "labels": np.array(labels, np.int64),
        "classes": pack(classes),
    }


def _train(path: Path) -> Arrays:
    """The images of the tar that has a tar of each class."""
    by_class: dict[str, list[Member]] = {}
    for outer, inside in inner_members(path):
        match = CLASS_TAR.fullmatch(outer.name)
        if match is None or match[1] in by_class:
            what = "comes twice" if match else "is no tar of a class, such as n01440764.tar"
            raise InputError(f"{path}: {outer.name} {what}; fetch {TRAIN} anew")
        by_class[match[1]] = list(inside)
    empty = [name for name, found in by_class.items() if not found]
    if empty or len(by_class) < 2:
        what = f"no image in class {some(empty)}" if empty else f"{len(by_class)} classes, and at least two are needed"
        raise InputError(f"{path}: {what}; fetch {TRAIN} anew")
    classes = sorted(by_class)
    found = [member for name in classes for member in by_class[name]]
    return _arrays(found, [label for label, name in enumerate(classes) for _ in by_class[name]], classes)


def _val(root: Path, classes: list[str]) -> Arrays:
    """The images of the validation tar, by number, with the classes that the development kit gives them."""
    path = root / VAL
    numbered: dict[int, Member] = {}
    for member in members(path):
        match = VAL_IMAGE.fullmatch(member.name)
        if match is None or int(match[1]) in numbered:
            what = "comes twice" if match else "is no ILSVRC2012_val_00000001.JPEG"
            raise InputError(f"{path}: {member.name} {what}; fetch {VAL} anew")
        numbered[int(match[1])] = member
    truth, wnids = _truth(root)
    if sorted(numbered) != list(range(1, len(truth) + 1)):
        raise InputError(f"{path} has {len(numbered)} images and {KIT} the classes of {len(truth)}; fetch the one that is short")
    unknown = sorted({wnids.get(number, str(number)) for number in truth} - set(classes))
    if unknown:
        raise InputError(f"{root}: classes {some(unknown)} of {VAL} are not in {TRAIN}; fetch the one that is short")
    places = {name: label for label, name in enumerate(classes)}
    order = sorted(numbered)
    return _arrays([numbered[n] for n in order], [places[wnids[truth[n - 1]]] for n in order], classes)


def _kit(root: Path) -> Path:
    """The development kit: a `.tar.gz`, or the ground truth of an unpacked one."""
    for path in (root / f"{KIT}.tar.gz", root / KIT / TRUTH):
        if path.is_file():
            return path
    raise InputError(f"{root} has no {KIT}.tar.gz, which says the classes of {VAL}; fetch it from image-net.org beside the tars")


def _truth(root: Path) -> tuple[list[int], dict[int, str]]:
    """Class number of each validation image, and WordNet number of each class number."""
    from scipy.io import loadmat

    kit = _kit(root)
    try:
        contents = [_content(root, kit, name) for name in (TRUTH, META)]
        truth = [int(line) for line in contents[0].split()]
        synsets: Any = loadmat(io.BytesIO(contents[1]), squeeze_me=True)["synsets"]
        return truth, {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    except (*DAMAGED, tarfile.TarError, KeyError, TypeError, NotImplementedError) as error:
        raise InputError(f"{kit} cannot be read ({error}); fetch {KIT}.tar.gz anew") from error


def _content(root: Path, kit: Path, name: str) -> bytes:
    if kit.suffix != ".gz":
        return (root / KIT / name).read_bytes()
    with tarfile.open(kit) as tar:
        file = tar.extractfile(f"{KIT}/{name}")
        if file is None:
            raise KeyError(f"{name} is not a file in it")
        return file.read()
