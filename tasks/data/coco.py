"""COCO instances: `annotations/instances_{train,val}2017.json` with `train2017/` and `val2017/`.

The year may be absent, or another one, in the names of the files, of the folders, or of both. Anything converted to this
format works: polygons or run-length masks or boxes alone, crowd regions, images without objects, gaps in the category ids.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, _coco_json, need_folder, some, spread
from tasks.data._coco_kept import content_of
from tasks.images import read_rgb, read_size

INFO = Info(
    name="coco",
    kind="detection",
    description="COCO instances: boxes, with or without masks",
    layout=(
        "annotations/instances_train2017.json\nannotations/instances_val2017.json\ntrain2017/*.jpg\nval2017/*.jpg\n"
        "the year may be absent"
    ),
    licence="COCO annotations CC BY 4.0; images under the terms of Flickr, each with its own licence",
)

# Headers read to compare sizes with the annotation file, evenly spaced; Detectron2 checks every image when it is read.
SIZES_SAMPLED = 1000


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """One split, validated; the dicts are in COCO's own terms."""

    image_root: Path
    json_path: Path
    images: list[dict[str, Any]]
    """By ascending id, each with `id`, `file_name`, `width`, `height` and whatever else the file has."""
    annotations: dict[int, list[dict[str, Any]]]
    """By image id, with an empty list for images without objects. Keys: `id, image_id, category_id` (the original one), `bbox`
    (x, y, width, height in pixels), `area, iscrowd`, and `segmentation` when `has_masks`, of those
    that have one."""
    categories: list[dict[str, Any]]
    """By ascending id."""
    has_masks: bool
    federated: bool = False
    """Whether images say only of some classes that they do not have them, as in LVIS (keys `neg_category_ids` and
    `not_exhaustive_category_ids`), which shapes how predictions are counted."""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """`{id, kind}` of each annotation that was left out."""
    clipped: list[int] = field(default_factory=list)
    """Ids of annotations whose box was cut to its image."""

    def __len__(self) -> int:
        """Number of images, with and without objects."""
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """Category names in label order."""
        return tuple(category["name"] for category in self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's own category id of each label."""
        return tuple(category["id"] for category in self.categories)

    def masked(self) -> "CocoSplit":
        """The split with the objects alone that have a mask; the others are among `skipped`."""
        kept = {image: [item for item in items if "segmentation" in item] for image, items in self.annotations.items()}
        bare = [item["id"] for items in self.annotations.values() for item in items if "segmentation" not in item]
        return replace(self, annotations=kept, skipped=self.skipped + [{"id": number, "kind": "no mask"} for number in bare])

    def path(self, index: int) -> Path:
        """File of one image."""
        return self.image_root / self.images[index]["file_name"]

    def image(self, index: int) -> Image.Image:
        """Decode one image; the orientation tag is obeyed, as in Detectron2."""
        return read_rgb(self.path(index), exif=True)

    def files(self) -> Iterable[Path]:
        """Every image."""
        return (self.path(index) for index in range(len(self)))

    def texts(self) -> Iterable[Path]:
        """The annotation file."""
        return (self.json_path,)

    def as_json(self) -> dict[str, Any]:
        """The validated split as the content of an instances file, for `pycocotools.coco.COCO().dataset`."""
        annotations = [item for image in self.images for item in self.annotations[image["id"]]]
        return {"info": {}, "licenses": [], "images": self.images, "annotations": annotations, "categories": self.categories}


def check(root: Path) -> None:
    """Raise InputError unless both splits have an annotation file and an image folder."""
    for which in ("train", "val"):
        _locate(root, which)


def load(root: Path, which: Which) -> CocoSplit:
    """Read and validate one split.

    Raises:
        InputError: broken structure, missing images, sizes that differ, or no usable object.
    """
    json_path, image_root = _locate(root, which)
    return make_split(json_path, image_root, lambda: _coco_json.read(json_path))


def make_split(
    json_path: Path,
    image_root: Path,
    read: Callable[[], dict[str, list[dict[str, Any]]]],
    *,
    layout: str = INFO.name,
    federated: bool = False,
) -> CocoSplit:
    """Make a split of an annotation file, after looking at the image files.

    Args:
        json_path: the file.
        image_root: what file names are relative to.
        read: reads and checks it, and gives what `_coco_json.read` gives.
        layout: whose rules these are.
        federated: see `CocoSplit.federated`.

    Raises:
        InputError: missing images, sizes that differ, or no usable object.
    """
    content = content_of(json_path, layout, read)
    images, cleaned = content.images, content.cleaned
    _check_files(json_path, image_root, images)
    _check_sizes(json_path, image_root, images)
    if not any(not item["iscrowd"] for items in cleaned.by_image.values() for item in items):
        kinds = sorted({entry["kind"] for entry in cleaned.skipped})
        raise InputError(f"{json_path}: no usable object ({some(kinds) or 'only crowds or nothing'}); correct the annotations")
    return CocoSplit(
        image_root,
        json_path,
        images,
        cleaned.by_image,
        content.categories,
        cleaned.has_masks,
        federated=federated,
        skipped=cleaned.skipped,
        clipped=cleaned.clipped,
    )


def _locate(root: Path, which: Which) -> tuple[Path, Path]:
    """Annotation file and image folder of a split."""
    need_folder(root / "annotations", INFO.layout)
    json_path = _with_year(root / "annotations", f"instances_{which}", ".json")
    return json_path, _with_year(root, which, "", near=json_path)


def _with_year(folder: Path, stem: str, suffix: str, *, near: Path | None = None) -> Path:
    """`STEM2017`, `STEM` or the only `STEM` with another year; a folder has the year of its annotation file if it can."""
    pattern = re.compile(rf"{stem}(\d{{4}})?{re.escape(suffix)}")
    matches = ((pattern.fullmatch(entry.name), entry) for entry in sorted(folder.iterdir()))
    found = {match[1] or "": entry for match, entry in matches if match and entry.is_dir() == (not suffix)}
    own_year = re.findall(r"(\d{4})\.json$", near.name) if near else []
    for year in (*own_year, "2017", ""):
        if year in found:
            return found[year]
    if len(found) == 1:
        return found.popitem()[1]
    what = f"several of {some(sorted(entry.name for entry in found.values()))}" if found else f"no {stem}2017{suffix or '/'}"
    raise InputError(f"{folder} has {what}; the layout is {'; '.join(INFO.layout.splitlines())}")


def _check_files(json_path: Path, image_root: Path, images: list[dict[str, Any]]) -> None:
    """One listing of each folder answers for all its images."""
    names = [image["file_name"] for image in images]
    folders = {str(PurePosixPath(name).parent) for name in names}
    present = {folder: {entry.name for entry in _entries(image_root / folder)} for folder in folders}
    missing = [name for name in names if PurePosixPath(name).name not in present[str(PurePosixPath(name).parent)]]
    if missing:
        raise InputError(f"{json_path}: {len(missing)} images are not in {image_root}: {some(missing)}; add the files")


def _entries(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def _check_sizes(json_path: Path, image_root: Path, images: list[dict[str, Any]]) -> None:
    """Compare a sample with the files; a damaged image is none of this check's business."""
    wrong = [image for image in spread(images, SIZES_SAMPLED) if _seen(image_root, image, exif=True) not in (None, _said(image))]
    if not wrong:
        return
    names = some([image["file_name"] for image in wrong])
    told = f"{json_path}: width or height differs from the file for {names}: {_said(wrong[0])} is said of the first"
    stored, seen = (_seen(image_root, wrong[0], exif=exif) for exif in (False, True))
    if stored == _said(wrong[0]):
        raise InputError(
            f"{told}, and its orientation tag turns it; annotate it as it is turned, or remove the tag from the file"
        )
    raise InputError(f"{told}, and it has {seen}; write the sizes of the files")


def _said(image: Mapping[str, Any]) -> str:
    return f"{image['width']}x{image['height']}"


def _seen(image_root: Path, image: Mapping[str, Any], *, exif: bool) -> str | None:
    """Width x height of the file, once its orientation tag is obeyed, which Detectron2 does too, or before; None if damaged."""
    try:
        (width, height), _ = read_size(image_root / image["file_name"], exif=exif)
    except InputError:
        return None
    return f"{width}x{height}"
