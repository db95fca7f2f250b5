"""The one place that turns an image file into RGB pixels; Pillow decodes, since a damaged file makes others crash or guess.

What becomes of files that are not plain 8-bit RGB:

| file | rule |
|---|---|
| grey, palette, 1-bit, CMYK, YCbCr | Pillow's conversion to RGB |
| transparency (RGBA, LA, palette) | dropped, not blended: the colours below it stay |
| 16-bit grey | divided by 257, so that 65535 becomes 255 (Pillow's own conversion clamps at 255) |
| animation | the first frame |
| 32-bit float | refused: its range is unknown |
"""

import errno
import io
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mae_bench.core.errors import InputError

# What Pillow's readers, of many hands, raise for damaged files; EOFError and KeyError come from the animated formats.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, struct.error, zlib.error, Image.DecompressionBombError)

# What a network file system answers for a moment, and how long to wait before each further try, in seconds.
TRANSIENT = frozenset((errno.EIO, errno.ESTALE))
PAUSES = (0.05, 0.2, 0.8)

T = TypeVar("T")

# Values of the orientation tag that swap width and height.
SIDEWAYS = frozenset((5, 6, 7, 8))


def read_rgb(path: Path, *, exif: bool) -> Image.Image:
    """Decode a file completely and give it as an RGB image of 8 bits.

    Args:
        path: any image that Pillow reads.
        exif: whether the camera's orientation tag turns the picture. Detectron2 obeys the tag; ImageNet protocols, which read
            through torchvision's ImageFolder, do not.

    Raises:
        InputError: the file is missing, unreadable, damaged, or too large to be an honest picture.
    """
    return decode_rgb(path, str(path), exif=exif)


def decode_rgb(source: Path | bytes, name: str, *, exif: bool = False, shrink: int = 1) -> Image.Image:
    """Decode a file, or the content of one, as `read_rgb` does.

    Args:
        source: where it is, or what is in it.
        name: of the image in messages.
        exif: see `read_rgb`.
        shrink: up to 8; a JPEG may be decoded at 1/2, 1/4 or 1/8 of its resolution, the smallest that is not below 1/`shrink`.

    Raises:
        InputError: see `read_rgb`.
    """

    def decode() -> Image.Image:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if shrink > 1:
                image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image) if exif else image)

    try:
        return patiently(decode)
    except DAMAGED as error:
        raise InputError(f"cannot decode image {name}: {_reason(error)}; replace or remove it") from error


def patiently(read: Callable[[], T]) -> T:
    """Read, and try again for a while when a network file system fails."""
    for pause in PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            time.sleep(pause)
    return read()


def read_size(path: Path | bytes, *, exif: bool, name: str = "") -> tuple[tuple[int, int], str]:
    """Width and height, and the Pillow mode, from the header alone; with `exif` as the orientation tag turns it.

    Args:
        path: of the file, or what is in it.
        exif: see `read_rgb`.
        name: of the image in messages; the path without it.

    Raises:
        InputError: the header cannot be read.
    """
    try:
        with Image.open(io.BytesIO(path) if isinstance(path, bytes) else path) as image:
            turned = exif and image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
            width, height = image.size
            return (height, width) if turned else (width, height), image.mode
    except DAMAGED as error:
        raise InputError(f"cannot read image {name or path}: {_reason(error)}; replace or remove it") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image if type(image) is Image.Image else image.copy()
    if image.mode == "F":
        raise ValueError("it holds floating-point pixels of unknown range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey; Pillow gives 16-bit PGM files in its 32-bit mode `I`, with values up to 65535 too."""
    warnings.warn("16-bit grey images are scaled to 8 bits", stacklevel=7)
    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    scaled = ((grey + 128) // 257).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def _reason(error: BaseException) -> str:
    """The system's or Pillow's own words, without the file name that the caller has said already."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
