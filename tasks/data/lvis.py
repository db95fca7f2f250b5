"""LVIS v1 (arXiv 1908.03195): 1203 classes on the images of COCO, of which each image says only for some that it lacks them.

`annotations/lvis_v1_{train,val}.json` with COCO's `train2017/` and `val2017/` beside it; some images of its val split are from
COCO's train folder. The annotation files may also lie in `lvis/`, as Detectron2 has them, or beside the folders.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, _coco_json, some
from tasks.data.coco import CocoSplit, make_split

INFO = Info(
    name="lvis",
    kind="detection",
    description="LVIS v1 instances: boxes and masks of 1203 classes, annotated in part",
    layout="annotations/lvis_v1_train.json\nannotations/lvis_v1_val.json\ntrain2017/*.jpg\nval2017/*.jpg",
    licence="LVIS annotations CC BY 4.0; images under the terms of Flickr, each with its own licence",
)

FOLDERS = ("annotations", "lvis", ".")
FREQUENCIES = ("r", "c", "f")
"""How LVIS calls rare, common and frequent classes."""
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
"""Classes that an image is known not to have, and those of which not all objects in it are annotated."""


def check(root: Path) -> None:
    """Raise InputError unless both splits have an annotation file."""
    for which in ("train", "val"):
        _locate(root, which)


def load(root: Path, which: Which) -> CocoSplit:
    """Read and validate one split.

    Raises:
        InputError: broken structure, missing images, sizes that differ, or no usable object.
    """
    path = _locate(root, which)
    return make_split(path, root, lambda: _read(path), layout=INFO.name, federated=True)


def _locate(root: Path, which: Which) -> Path:
    name = f"lvis_v1_{which}.json"
    found = [root / folder / name for folder in FOLDERS if (root / folder / name).is_file()]
    if not found:
        raise InputError(f"{root} has no annotations/{name}; the layout is {'; '.join(INFO.layout.splitlines())}")
    return found[0]


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    data = _coco_json.read(path, _file_name)
    _check_federation(path, data)
    return data


def _file_name(image: dict[str, Any]) -> object:
    """`val2017/000000397133.jpg` of `http://images.cocodataset.org/val2017/000000397133.jpg`."""
    address = image.get("coco_url")
    return "/".join(PurePosixPath(address).parts[-2:]) if isinstance(address, str) else None


def _check_federation(path: Path, data: dict[str, list[dict[str, Any]]]) -> None:
    """What LVIS has beyond COCO; the counting of predictions relies on it."""
    unknown = [item["id"] for item in data["categories"] if item.get("frequency") not in FREQUENCIES]
    if unknown:
        raise InputError(f"{path}: {len(unknown)} categories without a frequency of {FREQUENCIES}: {some(unknown)}; use LVIS v1")
    known = {item["id"] for item in data["categories"]}
    for name in LISTS:
        wrong = [image["id"] for image in data["images"] if not _is_known(image.get(name), known)]
        if wrong:
            raise InputError(f"{path}: {len(wrong)} images without a list {name} of known categories: {some(wrong)}; use LVIS v1")


def _is_known(numbers: object, known: set[int]) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and number in known for number in numbers)
