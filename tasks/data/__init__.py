"""Data sets in their official layouts: one file a layout, and its name is the name on the command line.

A data set file has three names: `INFO`; `check(root)`, which looks at the layout without reading data; and
`load(root, which)`, which reads and validates one split. `tasks.handle` calls them.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from mae_bench.core.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from tasks.encoded import Encoded

Which = Literal["train", "val"]
Kind = Literal["classification", "detection", "segmentation"]

# How many bad entries a message names before it only counts them.
OFFENDERS_SHOWN = 5


@dataclass(frozen=True)
class Info:
    """What `mae-bench ls datasets` says about a layout."""

    name: str
    kind: Kind
    description: str
    layout: str
    """The folders and files it is recognised by, one a line."""
    licence: str
    options: tuple[str, ...] = ()
    """Words that may follow the name (`folder+links=PATH`): keyword arguments of `check` and `load` that are off without them."""


class Split(Protocol):
    """What every split offers, whatever its kind."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def files(self) -> Iterable[Path]:
        """Files whose names and sizes tell whether this is the same data."""
        ...

    def texts(self) -> Iterable[Path]:
        """Files whose content tells it too, such as the annotation file."""
        ...


class LabelledSplit(Split, Protocol):
    """What a split of kind `classification` offers beside that."""

    @property
    def labels(self) -> Sequence[int]:
        """Class of each image, a place in `classes`."""
        ...

    def encoded(self, index: int) -> "Encoded":
        """One image as it is stored."""
        ...

    def image(self, index: int) -> "Image.Image":
        """One image decoded, RGB; the orientation tag is not obeyed, as in the ImageNet protocols."""
        ...


class DataSet(Protocol):
    """A file of this folder."""

    INFO: Info

    @staticmethod
    def check(root: Path, **options: bool) -> None:
        """Raise InputError unless `root` has this layout."""
        ...

    @staticmethod
    def load(root: Path, which: Which, **options: bool) -> Split:
        """Read one split, or raise InputError for what makes it unusable."""
        ...


def some(items: Collection[object]) -> str:
    """The first few of several offenders, and how many there are beyond them."""
    shown = ", ".join(str(item) for item in islice(items, OFFENDERS_SHOWN))
    rest = len(items) - OFFENDERS_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def need_folder(folder: Path, layout: str) -> None:
    """Raise InputError unless a folder of the layout is there."""
    if not folder.is_dir():
        raise InputError(f"{folder.parent} has no folder {folder.name}/; the layout is {'; '.join(layout.splitlines())}")


def spread(items: list, most: int) -> list:
    """At most `most` items, evenly spaced over the list and with its first and last: a sample without a random draw."""
    if len(items) <= most:
        return items
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]
