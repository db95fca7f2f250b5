"""Image folders: `train/<class>/*` and `val/<class>/*`, as ImageNet has."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, need_folder, some
from tasks.encoded import Encoded

INFO = Info(
    name="folder",
    kind="classification",
    description="image folder with one folder per class (ImageNet-1k and anything laid out like it)",
    layout="train/<class>/*.jpg\nval/<class>/*.jpg",
    licence="that of the images; ImageNet: research and education only, by registration at image-net.org",
    options=("links",),
)

# torchvision's ImageFolder takes these, in either case; .gif is added, of which the first frame counts.
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"))


@dataclass(frozen=True, eq=False)
class ImageFolderSplit:
    """Images with one label each. Names are kept as short strings: ImageNet has 1.28 million of them."""

    folder: Path
    """`train/` or `val/`."""
    names: list[str]
    """Paths below `folder`, sorted."""
    labels: list[int]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def paths(self) -> "Paths":
        """The images' paths as a sequence, made one by one when asked for."""
        return Paths(self.folder, self.names)

    def encoded(self, index: int) -> Encoded:
        """One image as it is stored."""
        path = self.folder / self.names[index]
        return Encoded(path, str(path))

    def image(self, index: int) -> Image.Image:
        """Decode one image; the orientation tag is not obeyed, as in the ImageNet protocols."""
        return self.encoded(index).image()

    def files(self) -> Iterable[Path]:
        """Every image."""
        return self.paths

    def texts(self) -> Iterable[Path]:
        """None: the folder names are the annotation."""
        return ()


class Paths(Sequence[Path]):
    """Read-only view of names as paths."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        """View `names` as paths below `folder`."""
        self._folder = folder
        self._names = names

    def __len__(self) -> int:
        """Number of paths."""
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "Paths": ...

    def __getitem__(self, index: int | slice) -> "Path | Paths":
        """One path, or the view of a slice."""
        if isinstance(index, slice):
            return Paths(self._folder, self._names[index])
        return self._folder / self._names[index]


def check(root: Path, *, links: bool = False) -> None:
    """Raise InputError unless both splits are there with the same classes; see `load` for `links`."""
    class_names(root, links=links)


def load(root: Path, which: Which, *, links: bool = False) -> ImageFolderSplit:
    """List one split.

    Args:
        root: holds `train/` and `val/`.
        which: of the two.
        links: whether symbolic links may lead out of `root`; those that stay inside are always followed.

    Raises:
        InputError: wrong layout, classes that differ between the splits, a class without images, or a link out of `root`.
    """
    classes = class_names(root, links=links)
    border = Border(root, links)
    names: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    for label, name in enumerate(classes):
        found = _images_below(root / which, name, border)
        if not found:
            empty.append(name)
        names += found
        labels += [label] * len(found)
    if empty:
        raise InputError(f"{root / which}: no image in class {some(empty)}; fill the folder or remove it from train/ and val/")
    return ImageFolderSplit(root / which, names, labels, classes)


class Border:
    """Looks where symbolic links lead, so that a data set does not silently take in what lies elsewhere."""

    def __init__(self, root: Path, links: bool) -> None:
        """Let links out of `root` pass or not."""
        self._root, self._open = os.path.realpath(root), links

    def check(self, link: str | Path) -> None:
        """Raise InputError for a link that leads out of the root, unless that is allowed."""
        if not self._open and not Path(os.path.realpath(link)).is_relative_to(self._root):
            raise InputError(f"{link} is a link out of the data set; write -d folder+links=PATH to follow such links")


def class_names(root: Path, *, links: bool = False) -> tuple[str, ...]:
    """Sorted names of the class folders, which have to be the same in `train/` and `val/`.

    Raises:
        InputError: there are none, only one, they differ, or they are links out of `root` and `links` is off.
    """
    border = Border(root, links)
    train, val = _class_folders(root / "train", border), _class_folders(root / "val", border)
    if train != val:
        only = [f"only in {side}: {some(extra)}" for side, extra in _differences(train, val) if extra]
        raise InputError(f"{root}: train/ and val/ have different classes ({'; '.join(only)}); make them agree")
    if len(train) == 1:
        raise InputError(f"{root}: only one class ({train[0]}); a classification task needs at least two")
    return tuple(train)


def _class_folders(folder: Path, border: Border) -> list[str]:
    need_folder(folder, INFO.layout)
    if folder.is_symlink():
        border.check(folder)
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        if entry.is_symlink():
            border.check(entry.path)
    names = sorted(entry.name for entry in visible if entry.is_dir())
    if not names and any(_is_image(entry.name) for entry in visible):
        raise InputError(f"{folder}: images are not in class folders; sort them into {folder.name}/<class>/")
    if not names:
        raise InputError(f"{folder}: no class folders; the layout is {folder.name}/<class>/*")
    return names


def _images_below(folder: Path, name: str, border: Border) -> list[str]:
    """Sorted paths, relative to `folder`, of the images in a class folder and the folders below it."""
    found: list[str] = []
    visited: set[tuple[int, int]] = set()
    pending = [name]
    while pending:
        relative = pending.pop()
        status = (folder / relative).stat()
        if (status.st_dev, status.st_ino) in visited:  # a link to a folder above, or a second one to the same folder
            continue
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder / relative) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    border.check(entry.path)
                if entry.is_dir():
                    pending.append(f"{relative}/{entry.name}")
                elif _is_image(entry.name):
                    found.append(f"{relative}/{entry.name}")
    return sorted(found)


def _is_image(name: str) -> bool:
    """Whether a name is an image's: macOS leaves hidden `._x.jpg` beside `x.jpg`, which are none."""
    return not name.startswith(".") and name[name.rfind(".") :].lower() in SUFFIXES


def _differences(train: list[str], val: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return ("train", sorted(set(train) - set(val))), ("val", sorted(set(val) - set(train)))
