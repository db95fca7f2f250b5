"""Cityscapes as it is given out: `leftImg8bit/{train,val}/CITY/*` with `gtFine/{train,val}/CITY/*_gtFine_labelIds.png`.

The maps hold the ids of all 34 labels; the benchmark counts 19 of them and ignores the others
(cityscapesScripts, cityscapesscripts/helpers/labels.py).
"""

from pathlib import Path

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, need_folder
from tasks.data._label_maps import (
    IGNORED,
    UNKNOWN,
    SegmentationSplit,
    check_headers,
    check_labels,
    check_present,
    images_in,
)

INFO = Info(
    name="cityscapes",
    kind="segmentation",
    description="Cityscapes, fine annotations, the 19 classes of the benchmark",
    layout="leftImg8bit/train/<city>/*_leftImg8bit.png\nleftImg8bit/val/<city>/*_leftImg8bit.png\n"
    "gtFine/train/<city>/*_gtFine_labelIds.png\ngtFine/val/<city>/*_gtFine_labelIds.png",
    licence="Cityscapes: non-commercial use, by registration at cityscapes-dataset.com",
)

IMAGE, MAP = "_leftImg8bit.png", "_gtFine_labelIds.png"

CLASSES: dict[int, tuple[str, tuple[int, int, int]]] = {
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
"""The 19 classes by their id in the maps."""
LAST_ID = 33


def check(root: Path) -> None:
    """Raise InputError unless the four folders are there."""
    for side in ("leftImg8bit", "gtFine"):
        need_folder(root / side, INFO.layout)
        for which in ("train", "val"):
            need_folder(root / side / which, INFO.layout)


def load(root: Path, which: Which) -> SegmentationSplit:
    """Read and validate one split.

    Raises:
        InputError: wrong layout, maps that are missing, of another size or not 8-bit ids.
    """
    check(root)
    images, maps = root / "leftImg8bit" / which, root / "gtFine" / which
    cities = sorted(city for city in images.iterdir() if city.is_dir() and not city.name.startswith("."))
    found = [path for city in cities for path in images_in(city) if path.name.endswith(IMAGE)]
    if not found:
        raise InputError(f"{images} holds no <city>/*{IMAGE}; the layout is {'; '.join(INFO.layout.splitlines())}")
    pairs = [(path, maps / path.parent.name / (path.name.removesuffix(IMAGE) + MAP)) for path in found]
    check_present(pairs, maps)
    check_headers(pairs, maps)
    names, colours = zip(*CLASSES.values(), strict=True)
    split = SegmentationSplit(pairs, names, colours, _lookup())
    check_labels(split, maps)
    return split


def _lookup() -> bytes:
    """Ids of classes that are not counted are ignored; licence plates, whose id is -1, come as 255."""
    counted = {label: number for number, label in enumerate(CLASSES)}
    ids = (counted.get(label, IGNORED) for label in range(LAST_ID + 1))
    return bytes(ids) + bytes([UNKNOWN] * (IGNORED - LAST_ID - 1)) + bytes([IGNORED])
