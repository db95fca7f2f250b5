"""A split whose images are members of tar files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.data._tars import TarReader
from tasks.encoded import Encoded


@dataclass(frozen=True, eq=False)
class TarImages:
    """Labelled images in tar files, in any order at the cost of one read each."""

    tars: Sequence[Path]
    places: np.ndarray
    """(N, 3) int64: number of the tar, offset and size in bytes of each image."""
    names: list[str]
    """Of the images in their tars."""
    labels: list[int]
    classes: tuple[str, ...]
    annotations: tuple[Path, ...] = ()
    """Files beside the tars that say what the classes are."""
    _reader: TarReader = field(default_factory=TarReader, repr=False)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def encoded(self, index: int) -> Encoded:
        """One image as it is stored.

        Raises:
            InputError: the tar cannot be read, or is shorter than it was.
        """
        tar, offset, size = self.places[index].tolist()
        path = self.tars[tar]
        return Encoded(self._reader.read(path, offset, size), f"{self.names[index]} in {path}")

    def image(self, index: int) -> Image.Image:
        """Decode one image; the orientation tag is not obeyed, as in the ImageNet protocols."""
        return self.encoded(index).image()

    def files(self) -> Iterable[Path]:
        """The tars."""
        return self.tars

    def texts(self) -> Iterable[Path]:
        """What is beside them."""
        return self.annotations
