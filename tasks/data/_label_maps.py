"""Images with label maps, whatever their folders: what every segmentation data set of this package is made of.

A label map is an image of 8-bit numbers of its image's size; a palette is only its colouring. Which class a stored number means
is up to the data set.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import some, spread
from tasks.images import DAMAGED, read_rgb, read_size

Palette = tuple[tuple[int, int, int], ...]

IGNORED = 255
"""Class number of pixels that neither train nor count."""
UNKNOWN = 254
"""Entry of a lookup for stored numbers that a map of this data set cannot have."""
MOST_CLASSES = 254

SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))

# Label maps whose pixels are read on each load, evenly spaced; the headers are read of all. Reading all 20,210 takes minutes.
MAPS_SAMPLED = 500

# Modes of a map whose bytes are labels.
MAP_MODES = frozenset(("L", "P"))


@dataclass(frozen=True, eq=False)
class SegmentationSplit:
    """Images and their label maps."""

    pairs: list[tuple[Path, Path]]
    """(image, label map), sorted by name."""
    classes: tuple[str, ...]
    palette: Palette | None
    """One RGB colour a class, when the data set has them."""
    lookup: bytes
    """Class of each of the 256 numbers that a map can hold: from 0, `IGNORED` or `UNKNOWN`."""
    sources: tuple[Path, ...] = ()
    """Files that name the classes, if any."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pairs)

    def image(self, index: int) -> Image.Image:
        """Decode one image; the orientation tag is not obeyed, since the label map has the stored orientation."""
        return read_rgb(self.pairs[index][0], exif=False)

    def labels(self, index: int) -> np.ndarray:
        """Class of each pixel of one image, (H, W) of bytes from 0, `IGNORED` where there is none.

        Raises:
            InputError: the map is missing, damaged, or holds numbers that mean nothing here.
        """
        return self._classes(self.pairs[index][1])

    def examine(self, path: Path) -> str:
        """Decode one of `files` whole; what is to be counted of it, or nothing.

        Raises:
            InputError: it is missing, damaged, or a map with numbers that mean nothing here.
        """
        if path in self._maps:
            return "" if np.any(self._classes(path) != IGNORED) else "label maps without a labelled pixel"
        read_rgb(path, exif=False)
        return ""

    @cached_property
    def _maps(self) -> frozenset[Path]:
        return frozenset(label_map for _, label_map in self.pairs)

    def _classes(self, path: Path) -> np.ndarray:
        stored = read_stored(path)
        found = np.frombuffer(self.lookup, np.uint8)[stored]
        if np.any(found == UNKNOWN):
            wrong = np.unique(stored[found == UNKNOWN]).tolist()
            raise InputError(f"{path}: labels {some(wrong)} are of none of the {len(self.classes)} classes; correct them")
        return found

    def files(self) -> Iterable[Path]:
        """Every image and label map."""
        return (path for pair in self.pairs for path in pair)

    def texts(self) -> Iterable[Path]:
        """The files that name the classes."""
        return self.sources


def counted_from(first: int, num_classes: int, *, ignored: tuple[int, ...] = ()) -> bytes:
    """The lookup of maps whose first class is stored as `first` and the others follow."""
    lookup = bytearray([UNKNOWN] * 256)
    lookup[first : first + num_classes] = range(num_classes)
    for stored in (*ignored, IGNORED):
        lookup[stored] = IGNORED
    return bytes(lookup)


def read_stored(path: Path) -> np.ndarray:
    """The numbers stored in a label map, (H, W) of bytes.

    Raises:
        InputError: the file is missing, damaged or not made of 8-bit numbers.
    """
    try:
        with Image.open(path) as label_map:
            label_map.load()
            mode, stored = label_map.mode, np.asarray(label_map)
    except DAMAGED as error:
        raise InputError(f"cannot decode label map {path}: {error}; replace it") from error
    if mode not in MAP_MODES:
        raise InputError(f"label map {path} has mode {mode} in place of 8-bit numbers; write class numbers, not colours")
    return stored


def present(path: Path) -> list[int]:
    """The numbers that occur in a label map, ascending."""
    return np.flatnonzero(np.bincount(read_stored(path).ravel(), minlength=256)).tolist()


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def check_present(pairs: list[tuple[Path, Path]], folder: Path) -> None:
    """Raise InputError where images have no label map."""
    there = {path for parent in {label_map.parent for _, label_map in pairs} if parent.is_dir() for path in parent.iterdir()}
    missing = [f"{image.name} ({label_map.name})" for image, label_map in pairs if label_map not in there]
    if missing:
        raise InputError(f"{folder} has no label map for {len(missing)} images: {some(missing)}; add what is in brackets")


def check_headers(pairs: list[tuple[Path, Path]], folder: Path) -> None:
    """Raise InputError where maps differ in size from their image or are not 8-bit labels, by the headers of all files."""
    other_size, other_mode = [], []
    for image, label_map in pairs:
        size, _ = read_size(image, exif=False)
        map_size, mode = read_size(label_map, exif=False)
        if mode not in MAP_MODES:
            other_mode.append(f"{label_map.name} ({mode})")
        elif map_size != size:
            other_size.append(f"{label_map.name} ({map_size[0]}x{map_size[1]} for {size[0]}x{size[1]})")
    if other_mode:
        raise InputError(f"{folder}: {len(other_mode)} maps are not 8-bit labels: {some(other_mode)}; write class numbers")
    if other_size:
        raise InputError(f"{folder}: {len(other_size)} maps differ in size from their image: {some(other_size)}; make them equal")


def check_labels(split: SegmentationSplit, folder: Path) -> set[int]:
    """Raise InputError where maps hold numbers of no class, or none has a class.

    At most `MAPS_SAMPLED` maps are read, unless no pixel of theirs has a class: then all are, until one has.

    Returns:
        The numbers found.
    """
    wrong: list[str] = []
    found: set[int] = set()
    for _, path in spread(split.pairs, MAPS_SAMPLED):
        numbers = present(path)
        found.update(numbers)
        if strange := [number for number in numbers if split.lookup[number] == UNKNOWN]:
            wrong.append(f"{path.name} ({max(strange)})")
    if wrong:
        count = len(split.classes)
        raise InputError(f"{folder}: {len(wrong)} maps have labels of none of the {count} classes: {some(wrong)}; correct them")
    if _ignored(found, split) and all(_ignored(present(path), split) for _, path in split.pairs):
        only = some(sorted(found))
        raise InputError(f"{folder}: no pixel has a class; the maps hold {only} alone, which is ignored; correct them")
    return found


def _ignored(numbers: Iterable[int], split: SegmentationSplit) -> bool:
    return all(split.lookup[number] == IGNORED for number in numbers)
