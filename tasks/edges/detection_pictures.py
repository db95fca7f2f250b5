"""Ground truth beside predictions, drawn on images of the val split."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle

from mae_bench.core.files import write_with
from tasks.edges.detection_data import objects, segmentation

if TYPE_CHECKING:
    from tasks.data.coco import CocoSplit

MOST_IMAGES = 8
PAIRS_A_ROW = 2
SIDE = 320  # px, longer side of each drawn image
GAP = 6  # px between images
TITLE = 18  # px above each image
LOWEST_SCORE = 0.3  # of predictions that are drawn; evaluation also counts those below
COLOURS = ("#e63946", "#1d78d8", "#2a9d5c", "#f48c06", "#8338ec", "#0096aa", "#d63384", "#8c6e1e")


def draw(found: dict[int, list[dict[str, Any]]], split: "CocoSplit", path: Path, *, masks: bool) -> None:
    """Write a grid of image pairs, the truth on the left of each; images with objects first.

    Args:
        found: detections by image id, with class numbers as categories.
        split: where the images and the truth are.
        path: PNG to write.
        masks: whether masks are drawn beside boxes.
    """
    labels = {category: label for label, category in enumerate(split.category_ids)}
    panels = []
    for number in sorted(range(len(split)), key=lambda number: not objects(split, split.images[number]["id"]))[:MOST_IMAGES]:
        image, image_id = split.image(number), split.images[number]["id"]
        known = [{**truth, "category_id": labels[truth["category_id"]]} for truth in objects(split, image_id)]
        guessed = [guess for guess in found.get(image_id, []) if guess["score"] >= LOWEST_SCORE]
        panels.append(_panel(image, known, split.classes, "truth", masks=masks))
        panels.append(_panel(image, guessed, split.classes, f"predicted, score from {LOWEST_SCORE}", masks=masks))
    grid = _grid(panels, 2 * PAIRS_A_ROW)
    write_with(path, lambda file: grid.save(file, "PNG"))


def _panel(image: Image.Image, things: list[dict[str, Any]], classes: tuple[str, ...], title: str, *, masks: bool) -> Image.Image:
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.resize(size, Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST)
    for thing in things if masks else ():
        colour = COLOURS[thing["category_id"] % len(COLOURS)]
        shape = Image.fromarray(bitmap(thing, image.size) * np.uint8(110)).resize(size, Image.Resampling.NEAREST)
        picture.paste(Image.new("RGB", size, colour), mask=shape)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for thing in things:
        colour = COLOURS[thing["category_id"] % len(COLOURS)]
        x, y, width, height = (value * scale for value in thing["bbox"])
        pen.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=colour, width=2)
        label = classes[thing["category_id"]] + (f" {thing['score']:.2f}" if "score" in thing else "")
        corner = (max(0.0, min(x, size[0] - pen.textlength(label, font))), max(0.0, y - 14))
        pen.rectangle(pen.textbbox(corner, label, font), fill=colour)
        pen.text(corner, label, fill="white", font=font)
    panel = Image.new("RGB", (SIDE, SIDE + TITLE), "white")
    ImageDraw.Draw(panel).text((2, 2), title, fill="black", font=font)
    panel.paste(picture, (0, TITLE))
    return panel


def bitmap(thing: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The mask of an object in an image of a size (width, height): (H, W) of 0 and 1."""
    shape = segmentation(thing)
    if isinstance(shape, list):
        shape = rle.merge(rle.frPyObjects(shape, size[1], size[0]))
    return rle.decode(shape)


def _grid(panels: list[Image.Image], columns: int) -> Image.Image:
    width, height = SIDE + GAP, SIDE + TITLE + GAP
    rows = -(-len(panels) // columns)
    grid = Image.new("RGB", (min(columns, len(panels)) * width + GAP, rows * height + GAP), "white")
    for place, panel in enumerate(panels):
        down, right = divmod(place, columns)
        grid.paste(panel, (GAP + right * width, GAP + down * height))
    return grid
