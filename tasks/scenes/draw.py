"""Drawing: a digit of 8x8 pixels becomes a smooth, turned, coloured one; several of them on a photograph make a scene."""

import colorsys
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tasks.data import Which
from tasks.scenes import sizes

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Cells of margin around the 8x8 digit, so that interpolation ends in nothing instead of at the array's edge.
MARGIN = 2

# Pixels a cell of the small drawing that tells how long a digit is once it is turned.
TRIAL_CELL = 4.0

WHITE = 255


@dataclass(frozen=True)
class Pool:
    """What one split may draw from."""

    digits: Floats
    """(N, 8, 8), ink from 0 to 1."""
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """Place of each digit in load_digits."""
    photographs: tuple[Floats, ...]
    """(H, W, 3) from 0 to 255."""

    def of_class(self, label: int) -> NDArray[np.int64]:
        """Positions in this pool of the digits of one class."""
        return np.flatnonzero(self.labels == label)


@dataclass
class Placed:
    """One digit of a scene."""

    label: int
    number: int
    """Its place in load_digits."""
    mask: Mask
    """(H, W); the pixels where it is seen, so without what later digits cover."""


@dataclass(frozen=True)
class Picture:
    """A finished image and what is in it, the lowest digit first."""

    pixels: NDArray[np.uint8]
    placed: list[Placed]


def open_pools() -> dict[Which, Pool]:
    """Split the digits and the photographs that ship with scikit-learn."""
    from sklearn.datasets import load_digits, load_sample_images

    data: Any = load_digits()
    ink = (data.images / 16).astype(np.float32)
    numbers = np.arange(len(ink))
    held_out = numbers >= sizes.FIRST_HELD_OUT_DIGIT
    samples: Any = load_sample_images()
    photographs = [image.astype(np.float32) for image in samples.images]
    cuts = [round(image.shape[1] * sizes.FIRST_HELD_OUT_COLUMN) for image in photographs]
    left = tuple(image[:, :cut] for image, cut in zip(photographs, cuts, strict=True))
    right = tuple(image[:, cut:] for image, cut in zip(photographs, cuts, strict=True))
    return {
        "train": Pool(ink[~held_out], data.target[~held_out], numbers[~held_out], left),
        "val": Pool(ink[held_out], data.target[held_out], numbers[held_out], right),
    }


def draw_single(pool: Pool, position: int, rng: Generator) -> Picture:
    """One digit at a random place of a small picture."""
    canvas = _background(pool, sizes.FOLDER_SIDE, rng)
    placed = _place(canvas, [], pool, position, sizes.FOLDER_DIGIT, rng)
    return _finish(canvas, [placed] if placed else [], rng)


def draw_scene(pool: Pool, rng: Generator) -> Picture:
    """Several digits, later ones partly over earlier ones."""
    canvas = _background(pool, sizes.SCENE_SIDE, rng)
    placed: list[Placed] = []
    for _ in range(rng.integers(*sizes.DIGITS_PER_SCENE, endpoint=True)):
        position = rng.choice(pool.of_class(int(rng.integers(10))))
        digit = _place(canvas, placed, pool, int(position), sizes.SCENE_DIGIT, rng)
        placed += [digit] if digit else []
    return _finish(canvas, placed, rng)


def alpha_matte(ink: Floats, side: float, rng: Generator) -> Floats:
    """Turn, shear and enlarge a digit of 8x8 pixels.

    Args:
        ink: (8, 8), from 0 to 1.
        side: the longer side of what is drawn, in pixels.
        rng: draws rotation, shear and stroke width.

    Returns:
        (h, w) opacity from 0 to 1 with a soft edge, cut to what is not transparent.
    """
    angle = radians(rng.uniform(-sizes.LARGEST_ROTATION, sizes.LARGEST_ROTATION))
    shear = rng.uniform(-sizes.LARGEST_SHEAR, sizes.LARGEST_SHEAR)
    threshold = rng.uniform(*sizes.STROKE_THRESHOLD)
    trial = _enlarged(ink, TRIAL_CELL, angle, shear, threshold)
    return _enlarged(ink, TRIAL_CELL * side / max(trial.shape), angle, shear, threshold)


def _enlarged(ink: Floats, cell: float, angle: float, shear: float, threshold: float) -> Floats:
    """The digit with cells of `cell` pixels, its edge where the interpolated ink passes the threshold."""
    out = int(cell * 12)
    a, b = (cos(angle) + shear * sin(angle)) / cell, (-sin(angle) + shear * cos(angle)) / cell
    c, d = sin(angle) / cell, cos(angle) / cell
    middle = MARGIN + 4
    matrix = (a, b, middle - (a + b) * out / 2, c, d, middle - (c + d) * out / 2)
    padded = Image.fromarray(np.pad(ink, MARGIN))
    smooth = np.asarray(padded.transform((out, out), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))
    alpha = np.clip((smooth - threshold) * (cell / sizes.EDGE_PIXELS) + 0.5, 0, 1, dtype=np.float32)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    canvas: Floats, below: list[Placed], pool: Pool, position: int, sides: tuple[int, int], rng: Generator, *, tries: int = 20
) -> Placed | None:
    """Paint one digit onto the canvas, where it leaves enough of those below it; None when no place is found."""
    alpha = alpha_matte(pool.digits[position], rng.uniform(*sides), rng)
    height, width = alpha.shape
    for _ in range(tries):
        top = int(rng.integers(canvas.shape[0] - height, endpoint=True))
        left = int(rng.integers(canvas.shape[1] - width, endpoint=True))
        mask = np.zeros(canvas.shape[:2], dtype=bool)
        mask[top : top + height, left : left + width] = alpha > 0.5
        if all((other.mask & ~mask).sum() >= sizes.LEAST_VISIBLE * other.mask.sum() for other in below):
            break
    else:
        return None
    for other in below:
        other.mask &= ~mask
    area = canvas[top : top + height, left : left + width]
    fill = _fill(alpha, rng)
    area[:] = area * (1 - alpha[..., None]) + fill * alpha[..., None]
    return Placed(int(pool.labels[position]), int(pool.numbers[position]), mask)


def _fill(alpha: Floats, rng: Generator) -> Floats:
    """A light colour, getting darker in a random direction; (h, w, 3)."""
    hsv = rng.uniform(0, 1), rng.uniform(0, sizes.LARGEST_SATURATION), rng.uniform(sizes.LEAST_VALUE, 1)
    colour = WHITE * np.array(colorsys.hsv_to_rgb(*hsv))
    direction = rng.uniform(0, 2 * np.pi)
    rows, columns = (np.linspace(-0.5, 0.5, length) for length in alpha.shape)
    slope = rows[:, None] * np.sin(direction) + columns * np.cos(direction)
    return (colour * (0.85 + 0.3 * slope[..., None])).astype(np.float32)


def _background(pool: Pool, side: int, rng: Generator) -> Floats:
    """A piece of a photograph, of random size, brightness and side, out of focus; (side, side, 3)."""
    photograph = pool.photographs[rng.integers(len(pool.photographs))]
    crop = int(rng.integers(side, sizes.LARGEST_CROP, endpoint=True))
    top = rng.integers(photograph.shape[0] - crop, endpoint=True)
    left = rng.integers(photograph.shape[1] - crop, endpoint=True)
    piece = photograph[top : top + crop, left : left + crop]
    piece = piece[:, ::-1] if rng.random() < 0.5 else piece
    image = Image.fromarray(piece.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    image = image.filter(ImageFilter.GaussianBlur(sizes.BLUR_PIXELS))
    pixels = np.asarray(image).astype(np.float32)
    mean = pixels.mean(axis=(0, 1))
    hazy = mean + (pixels - mean) * np.float32(rng.uniform(*sizes.HAZE))
    return hazy * np.float32(rng.uniform(*sizes.BRIGHTNESS))


def _finish(canvas: Floats, placed: list[Placed], rng: Generator) -> Picture:
    """The picture or its negative; rounded to whole levels."""
    canvas = WHITE - canvas if rng.random() < sizes.NEGATIVES else canvas
    return Picture(np.clip(canvas + 0.5, 0, WHITE).astype(np.uint8), placed)
