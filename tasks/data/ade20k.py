"""ADE20K as SceneParse150 gives it: `images/{training,validation}` with `annotations/{training,validation}`.

A label map is an 8-bit PNG of its image's size. 0 means "not labelled" and is ignored, and so is 255; class i, from 1, has the
label i (`reduce_zero_label` in mmsegmentation). Any number of classes up to 254 works. Their names come from
`classes.json`, a list of names or `{"classes": [...], "palette": [[r, g, b], ...]}`, else from the `objectInfo150.txt` of the
release; without either, all training maps are read once and the largest label counts the classes.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, need_folder, some, spread
from tasks.images import DAMAGED, read_rgb, read_size

INFO = Info(
    name="ade20k",
    kind="segmentation",
    description="ADE20K scene parsing (SceneParse150) and anything laid out like it",
    layout="images/training/*.jpg\nimages/validation/*.jpg\nannotations/training/*.png\nannotations/validation/*.png",
    licence="ADE20K: images for non-commercial research and education, annotations BSD-3-Clause",
)

FOLDERS: dict[Which, str] = {"train": "training", "val": "validation"}
RELEASE = "ADEChallengeData2016"
SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))
IGNORED = 255
MOST_CLASSES = 254

# Label maps whose pixels are read on each load, evenly spaced; the headers are read of all. Reading all 20,210 takes minutes.
MAPS_SAMPLED = 500

# Modes of a map whose bytes are labels; a palette is only its colouring.
MAP_MODES = frozenset(("L", "P"))


@dataclass(frozen=True, eq=False)
class AdeSplit:
    """Images and their label maps."""

    pairs: list[tuple[Path, Path]]
    """(image, label map), sorted by name."""
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    """One RGB colour a class, when the data set has them."""
    sources: tuple[Path, ...] = ()
    """The file the class names come from, if any."""
    reduce_zero_label: bool = True
    """Label 0 is ignored and label i is class i - 1."""
    ignore_index: int = IGNORED

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pairs)

    def image(self, index: int) -> Image.Image:
        """Decode one image; the orientation tag is not obeyed, since the label map has the stored orientation."""
        return read_rgb(self.pairs[index][0], exif=False)

    def files(self) -> Iterable[Path]:
        """Every image and label map."""
        return (path for pair in self.pairs for path in pair)

    def texts(self) -> Iterable[Path]:
        """The list of class names, if there is one."""
        return self.sources


def check(root: Path) -> None:
    """Raise InputError unless the four folders are there."""
    inside = _inside(root)
    if (inside / "images").is_dir() and not (inside / "annotations").is_dir():
        _refuse_full_release(inside / "images")
    for side in ("images", "annotations"):
        need_folder(inside / side, INFO.layout)
        for folder in FOLDERS.values():
            need_folder(inside / side / folder, INFO.layout)


def load(root: Path, which: Which) -> AdeSplit:
    """Read and validate one split.

    Raises:
        InputError: wrong layout, maps that are missing, of another size or not 8-bit labels, or labels above the classes.
    """
    check(root)
    inside = _inside(root)
    pairs = _pair(inside, FOLDERS[which])
    _check_headers(pairs)
    classes, palette, source = _named_classes(inside)
    if source is None:
        classes = _counted_classes(inside)
    _check_labels([label_map for _, label_map in spread(pairs, MAPS_SAMPLED)], len(classes))
    return AdeSplit(pairs, classes, palette, (source,) if source else ())


def _inside(root: Path) -> Path:
    """The folder that holds `images/` and `annotations/`: the root or the release's folder in it."""
    return root / RELEASE if (root / RELEASE).is_dir() else root


def _pair(inside: Path, folder: str) -> list[tuple[Path, Path]]:
    images = inside / "images" / folder
    found = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    if not found:
        _refuse_full_release(images)
        raise InputError(f"{images} holds no image ({', '.join(sorted(SUFFIXES))})")
    pairs = [(path, inside / "annotations" / folder / f"{path.stem}.png") for path in found]
    present = {path.name for path in (inside / "annotations" / folder).iterdir()}
    missing = [path.name for path, label_map in pairs if label_map.name not in present]
    if missing:
        where = inside / "annotations" / folder
        raise InputError(f"{where} has no label map for {len(missing)} images: {some(missing)}; add NAME.png for each")
    return pairs


def _refuse_full_release(images: Path) -> None:
    """Full ADE20K sorts its images into folders by scene and has no label maps of this kind."""
    if next(images.glob("**/*_seg.png"), None):
        raise InputError(f"{images}: this is full ADE20K, with *_seg.png beside the images; take SceneParse150 ({RELEASE}.zip)")


def _check_headers(pairs: list[tuple[Path, Path]]) -> None:
    """Compare sizes and modes of all files, by their headers."""
    other_size, other_mode = [], []
    for image, label_map in pairs:
        size, _ = read_size(image, exif=False)
        map_size, mode = read_size(label_map, exif=False)
        if mode not in MAP_MODES:
            other_mode.append(f"{label_map.name} ({mode})")
        elif map_size != size:
            other_size.append(f"{label_map.name} ({map_size[0]}x{map_size[1]} for {size[0]}x{size[1]})")
    folder = pairs[0][1].parent
    if other_mode:
        raise InputError(f"{folder}: {len(other_mode)} maps are not 8-bit labels: {some(other_mode)}; write class numbers")
    if other_size:
        raise InputError(f"{folder}: {len(other_size)} maps differ in size from their image: {some(other_size)}; make them equal")


def _named_classes(inside: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...] | None, Path | None]:
    """Names, palette and the file they come from; no file means that nothing names the classes."""
    path = inside / "classes.json"
    if path.is_file():
        return (*_read_classes(path), path)
    path = inside / "objectInfo150.txt"
    if path.is_file():
        return _read_release(path), None, path
    return (), None, None


def _read_classes(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...] | None]:
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if isinstance(data, list):
        data = {"classes": data}
    names = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not 1 <= len(names) <= MOST_CLASSES:
        raise InputError(f'{path} is not a list of 1 to {MOST_CLASSES} names, or {{"classes": [...], "palette": [...]}} with one')
    palette = data.get("palette")
    if palette is None:
        return tuple(names), None
    if not isinstance(palette, list) or len(palette) != len(names) or not all(_is_colour(colour) for colour in palette):
        raise InputError(f"{path}: the palette is not one [r, g, b] of 0..255 for each of the {len(names)} classes")
    return tuple(names), tuple((r, g, b) for r, g, b in palette)


def _read_release(path: Path) -> tuple[str, ...]:
    """Names from the release's table (Idx, Ratio, Train, Val, Name; tab-separated), the first synonym of each."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    if [row[0].strip() for row in rows] != [str(number + 1) for number in range(len(rows))]:
        raise InputError(f"{path}: its rows are not numbered 1, 2, ...; get the file of the release again")
    return tuple(row[-1].split(",")[0].strip() for row in rows)


def _is_colour(colour: Any) -> bool:
    return isinstance(colour, list) and len(colour) == 3 and all(type(value) is int and 0 <= value <= 255 for value in colour)


def _counted_classes(inside: Path) -> tuple[str, ...]:
    folder = inside / "annotations" / FOLDERS["train"]
    largest = _largest_label(folder, folder.stat().st_mtime_ns)
    if largest == 0:
        raise InputError(f"{folder}: no map has a labelled pixel (1 to {MOST_CLASSES}); are the labels counted from 0?")
    return tuple(f"class {number + 1}" for number in range(largest))


@cache
def _largest_label(folder: Path, _changed: int) -> int:
    """Read every training map, once for both splits; the time of the last change is part of the cache's key."""
    return max((max(_labels(path), default=0) for path in sorted(folder.glob("[!.]*.png"))), default=0)


def _check_labels(maps: list[Path], num_classes: int) -> None:
    wrong = []
    for path in maps:
        above = [label for label in _labels(path) if label > num_classes]
        if above:
            wrong.append(f"{path.name} ({max(above)})")
    if wrong:
        raise InputError(f"{maps[0].parent}: {len(wrong)} maps have labels above {num_classes}: {some(wrong)}; correct them")


def _labels(path: Path) -> list[int]:
    """The labels that occur in a map, without the ignored ones."""
    try:
        with Image.open(path) as label_map:
            counts = label_map.histogram()
    except DAMAGED as error:
        raise InputError(f"cannot decode label map {path}: {error}; replace it") from error
    return [label for label, count in enumerate(counts[:IGNORED]) if count and label]
