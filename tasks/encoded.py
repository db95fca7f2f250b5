"""An image as it is stored, in a file or among others in a larger one, and the fastest way to its exact pixels."""

import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from tasks.images import decode_rgb, read_size

JPEG = b"\xff\xd8\xff"
"""What a JPEG begins with."""
MOST_BYTES = 2**28
"""Larger files are left to Pillow, which does not read them whole."""


@dataclass(frozen=True)
class Encoded:
    """An image that is not decoded yet; its orientation tag is not obeyed, as in the ImageNet protocols.

    With simplejpeg installed (the extra `fast`) it decodes what is a sound JPEG in grey or YCbCr. It stands on the same library
    as Pillow and gives the same pixels in less time; whatever it has the least complaint about is Pillow's to judge.
    """

    source: Path | bytes
    """Where the image is, or what is in it."""
    name: str
    """In messages."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, from the header alone.

        Raises:
            InputError: the header cannot be read.
        """
        (width, height), _ = read_size(self.source, exif=False, name=self.name)
        return height, width

    def image(self) -> Image.Image:
        """Decode into an RGB image.

        Raises:
            InputError: see `tasks.images.read_rgb`.
        """
        pixels = self._by_simplejpeg()
        return decode_rgb(self.source, self.name) if pixels is None else Image.fromarray(pixels)

    def pixels(self, *, shrink: int = 1) -> np.ndarray:
        """Decode into RGB (H, W, 3) uint8, writable.

        Args:
            shrink: 1, 2, 4 or 8; a JPEG is decoded at this fraction of its resolution, rounded up, any other image in full.

        Raises:
            InputError: see `tasks.images.read_rgb`.
        """
        pixels = self._by_simplejpeg() if shrink == 1 else None
        return np.array(decode_rgb(self.source, self.name, shrink=shrink)) if pixels is None else pixels

    def _by_simplejpeg(self) -> np.ndarray | None:
        decoder = simplejpeg()
        if decoder is None:
            return None
        try:
            content = self.source if isinstance(self.source, bytes) else _content(self.source)
            if not content.startswith(JPEG):
                return None
            height, width, colours, _ = decoder.decode_jpeg_header(content)
            # Pillow's conversion of four inks differs by a level, and it has a limit against bombs.
            if colours not in ("YCbCr", "Gray") or height * width > (Image.MAX_IMAGE_PIXELS or 0):
                return None
            return decoder.decode_jpeg(content, strict=True)
        except (OSError, ValueError):
            return None


@cache
def simplejpeg() -> ModuleType | None:
    """The package of that name, where it is installed."""
    try:
        import simplejpeg as decoder
    except ModuleNotFoundError:
        return None
    return decoder


def _content(path: Path) -> bytes:
    """What is in a file; nothing where it is no plain one, or too large."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        return b""
    return path.read_bytes()
