"""`predictions.png`: validation images beside their labels and the predictions, with a legend of the classes."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.data._label_maps import IGNORED

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

MOST = 8
"""Rows of the picture."""
CELL = (192, 144)
"""Room for each image, width and height in pixels."""
GAP = 6
LEGEND_WIDTH = 220
LINE = 18
MOST_NAMES = 40
"""Classes that the legend makes room for; of more, those that fit beside the rows."""


@dataclass(frozen=True)
class Example:
    """One row of the picture."""

    image: Image.Image
    true: np.ndarray
    """(H, W) of class numbers, `IGNORED` where nothing is asked."""
    predicted: np.ndarray
    """(H, W) of class numbers."""


def class_colours(count: int, palette: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """RGB of each class, (256, 3): the data set's own palette, or hues that stay apart; ignored pixels are black."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(count):
        # Steps of the golden ratio never come close to an earlier hue; three brightnesses tell many classes apart.
        hue, value = (index * 0.618034) % 1, (0.95, 0.7, 0.5)[index // 12 % 3]
        colours[index] = palette[index] if palette else [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, value)]
    return colours


def draw(examples: list[Example], classes: tuple[str, ...], colours: np.ndarray) -> Image.Image:
    """Rows of image, labels and prediction, and the legend of the classes seen in them."""
    seen = sorted({int(number) for row in examples for part in (row.true, row.predicted) for number in np.unique(part)})
    names = [("ignored" if number == IGNORED else classes[number], number) for number in seen]
    height = max(LINE + len(examples) * (CELL[1] + GAP), LINE * (min(len(names), MOST_NAMES) + 2))
    page = Image.new("RGB", (3 * (CELL[0] + GAP) + LEGEND_WIDTH, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for column, title in enumerate(("image", "labels", "prediction")):
        pen.text((column * (CELL[0] + GAP) + GAP, 1), title, fill="black", font=font)
    for row, example in enumerate(examples):
        top = LINE + row * (CELL[1] + GAP)
        parts = (example.image, Image.fromarray(colours[example.true]), Image.fromarray(colours[example.predicted]))
        for column, part in enumerate(parts):
            page.paste(_fit(part, smooth=column == 0), (column * (CELL[0] + GAP) + GAP, top))
    _legend(pen, font, names, colours, height)
    return page


def _fit(image: Image.Image, *, smooth: bool) -> Image.Image:
    """Shrink or enlarge to the room there is; label colours are never blended."""
    scale = min(CELL[0] / image.width, CELL[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)


def _legend(pen: ImageDraw.ImageDraw, font: Font, names: list[tuple[str, int]], colours: np.ndarray, height: int) -> None:
    left, most = 3 * (CELL[0] + GAP) + GAP, height // LINE - 2
    for line, (name, number) in enumerate(names[:most]):
        top = LINE * (line + 1)
        pen.rectangle((left, top + 2, left + 14, top + 14), fill=tuple(colours[number].tolist()), outline="black")
        pen.text((left + 20, top), name[:28], fill="black", font=font)
    if len(names) > most:
        pen.text((left + 20, LINE * (most + 1)), f"and {len(names) - most} more", fill="black", font=font)
